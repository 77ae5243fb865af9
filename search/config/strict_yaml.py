"""YAML files as users write them, read strictly.

PyYAML follows YAML 1.1, in which ``1e-4`` is text, ``no`` is false, ``1:30`` is ninety, ``010`` is eight and
a key that is given twice silently wins. Here numbers are numbers, only true and false are booleans, a
repeated key is an error, and so is any tag: no other values are needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import yaml

from search.config.validation_errors import format_value
from trainables.errors import UsageError

_LARGEST = 1_000_000
_LARGEST_YAML = 100_000
"""Bytes; PyYAML takes a second for these."""

_LONGEST_REASON = 200
"""Letters of PyYAML's own words: a tag may be as long as the file."""

_SURROGATES = re.compile("[\ud800-\udfff]")
_TAG = "tag:yaml.org,2002:"


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2 and no repeated keys.

    Of SafeLoader's constructors only those that take any content are left: the others (timestamps, …) fail
    with whatever error Python has for what they don't expect.
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
                None, None, f"key {format_value(key)} is given twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _scalar(kind: Callable[[str], object], words: str) -> Callable[[_StrictLoader, yaml.ScalarNode], object]:
    def make(loader: _StrictLoader, node: yaml.ScalarNode) -> object:
        text = loader.construct_scalar(node)
        try:
            return kind(text)
        except ValueError:
            reason = f"expected {words}, received {format_value(text)}"
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
    """The top-level mapping of the YAML file at ``path``; ``what`` names the file in messages.

    Raises UsageError if the file is missing, not UTF-8, not YAML, empty or no mapping with text keys.
    """
    text = read_text(path, what, _LARGEST_YAML)
    try:
        # _StrictLoader derives from SafeLoader: it makes no objects but plain data.
        content = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise UsageError(f"{what} {str(path)!r}: not valid YAML: {_place(error)}") from None
    except RecursionError:
        raise UsageError(f"{what} {str(path)!r}: expected 'key: value' lines, received a deep nest") from None
    except ValueError as error:  # an escape beyond Unicode
        raise UsageError(f"{what} {str(path)!r}: not usable YAML: {error}") from None
    if content is None:
        raise UsageError(f"{what} {str(path)!r}: expected 'key: value' lines; the file is empty")
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UsageError(f"{what} {str(path)!r}: expected 'key: value' lines at the top, received a {kind}")
    for key in content:
        if not isinstance(key, str) or _SURROGATES.search(key):
            raise UsageError(f"{what} {str(path)!r}: expected words as keys, received {format_value(key)}")
    return content


def read_text(path: Path, what: str, most: int = _LARGEST) -> str:
    """The UTF-8 text of a small file of at most ``most`` bytes; UsageError names ``what`` and the path."""
    try:
        if path.is_dir():
            raise UsageError(f"{what} {str(path)!r}: expected a file; it is a folder")
        with path.open("rb") as stream:
            content = stream.read(most + 1)
    except FileNotFoundError:
        raise UsageError(f"{what} {str(path)!r}: no such file (working directory: {Path.cwd()})") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{what} {str(path)!r}: can't be read: {error}") from None
    if len(content) > most:
        raise UsageError(f"{what} {str(path)!r}: expected at most {most // 1000:,} kB of text")
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
    return words if len(words) <= _LONGEST_REASON else f"{words[:_LONGEST_REASON]}…"
