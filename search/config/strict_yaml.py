"""Read YAML files strictly, so that a value means what its writer expects.

PyYAML follows YAML 1.1: ``1e-4`` is text, ``no`` is false, ``1:30`` is ninety, ``010`` is eight, and the last value of
a repeated key silently wins. Here ``1e-4`` is a number, only ``true`` and ``false`` are booleans, and a repeated key is
an error. So is any tag, because options need no other types of values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import yaml

from search.config.validation_errors import quote_value
from trainables.errors import UsageError

_MAX_BYTES = 1_000_000
_MAX_YAML_BYTES = 100_000
"""PyYAML parses a file of this size in about a second."""

_MAX_REASON = 200
"""A message quotes this many letters of PyYAML's own: it may contain a tag, which can be as long as the file."""

_SURROGATES = re.compile("[\ud800-\udfff]")
_TAG = "tag:yaml.org,2002:"


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2, without tags and without repeated keys.

    It keeps those constructors of SafeLoader that accept any content. The others (timestamps, …) raise arbitrary Python
    errors for content that they do not expect.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    yaml_constructors = {  # noqa: RUF012
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix(_TAG) in ("null", "str", "seq")
    }


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {quote_value(key)} is given twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _scalar(kind: Callable[[str], object], words: str) -> Callable[[_StrictLoader, yaml.ScalarNode], object]:
    def make(loader: _StrictLoader, node: yaml.ScalarNode) -> object:
        text = loader.construct_scalar(node)
        try:
            return kind(text)
        except ValueError:
            reason = f"expected {words}, received {quote_value(text)}"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark) from None

    return make


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _resolve(tag: str, pattern: str, first: list[str]) -> None:
    _StrictLoader.add_implicit_resolver(_TAG + tag, re.compile(pattern, re.ASCII), first)


_resolve("null", r"(?:~|null|Null|NULL|)\Z", ["~", "n", "N", ""])
_resolve("bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", list("tTfF"))
_resolve("int", r"[-+]?[0-9]+\Z", list("-+0123456789"))
_resolve(
    "float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z", list("-+.0123456789")
)
_StrictLoader.add_constructor(f"{_TAG}map", _mapping)
_StrictLoader.add_constructor(f"{_TAG}bool", _scalar(_boolean, "true or false"))
_StrictLoader.add_constructor(f"{_TAG}int", _scalar(int, "a whole number of at most 4,300 digits"))
_StrictLoader.add_constructor(f"{_TAG}float", _scalar(float, "a number"))


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Return the top-level mapping of a YAML file.

    Args:
        path: the file.
        what: what messages call the file, such as ``config file``.

    Raises:
        UsageError: the file is missing, too large, not UTF-8, not YAML, empty, or not a mapping with text keys.
    """
    text = read_text(path, what, _MAX_YAML_BYTES)
    try:
        # Safe although it is not safe_load: _StrictLoader is a SafeLoader and creates plain data only.
        content = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise UsageError(f"{what} {str(path)!r}: not valid YAML: {_place(error)}") from None
    except RecursionError:
        raise UsageError(f"{what} {str(path)!r}: expected 'key: value' lines, received a deep nest") from None
    except ValueError as error:  # an escape sequence for a number beyond Unicode
        raise UsageError(f"{what} {str(path)!r}: not usable YAML: {error}") from None
    if content is None:
        raise UsageError(f"{what} {str(path)!r}: expected 'key: value' lines; the file is empty")
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UsageError(f"{what} {str(path)!r}: expected 'key: value' lines at the top, received a {kind}")
    for key in content:
        if not isinstance(key, str) or _SURROGATES.search(key):
            raise UsageError(f"{what} {str(path)!r}: expected words as keys, received {quote_value(key)}")
    return content


def read_text(path: Path, what: str, max_bytes: int = _MAX_BYTES) -> str:
    """Return the text of a UTF-8 file of at most ``max_bytes`` bytes.

    Raises:
        UsageError: the file is missing, too large or not UTF-8; the message names ``what`` and the path.
    """
    try:
        if path.is_dir():
            raise UsageError(f"{what} {str(path)!r}: expected a file; it is a folder")
        with path.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except FileNotFoundError:
        raise UsageError(f"{what} {str(path)!r}: no such file (working directory: {Path.cwd()})") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{what} {str(path)!r}: can't be read: {error}") from None
    if len(content) > max_bytes:
        raise UsageError(f"{what} {str(path)!r}: expected at most {max_bytes // 1000:,} kB of text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} {str(path)!r}: expected UTF-8 text; byte {error.start} is not") from None


def _place(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {_cut(str(error.problem))}"
    return _cut(" ".join(str(error).split()))


def _cut(words: str) -> str:
    return words if len(words) <= _MAX_REASON else f"{words[:_MAX_REASON]}…"
