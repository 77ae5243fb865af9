"""YAML files as users write them, read strictly.

PyYAML follows YAML 1.1, in which ``1e-4`` is text, ``no`` is false, ``1:30`` is ninety, ``010`` is eight and
a key that is given twice silently wins. Here numbers are numbers, only true and false are booleans, and a
repeated key is an error.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from trainables.errors import UsageError

_LARGEST = 1_000_000
_MAP = "tag:yaml.org,2002:map"


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2 and no repeated keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is given twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _whole(loader: _StrictLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _resolve(tag: str, pattern: str, first: list[str]) -> None:
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern, re.ASCII), first)


_resolve("null", r"(?:~|null|Null|NULL|)\Z", ["~", "n", "N", ""])
_resolve("bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", list("tTfF"))
_resolve("int", r"[-+]?[0-9]+\Z", list("-+0123456789"))
_resolve(
    "float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z", list("-+.0123456789")
)
_StrictLoader.add_constructor(_MAP, _mapping)
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _whole)


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """The top-level mapping of the YAML file at ``path``; ``what`` names the file in messages.

    Raises UsageError if the file is missing, not UTF-8, not YAML, empty or no mapping with text keys.
    """
    text = read_text(path, what)
    try:
        # _StrictLoader derives from SafeLoader: it makes no objects but plain data.
        content = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise UsageError(f"{what} {str(path)!r}: not valid YAML: {_place(error)}") from None
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{what} {str(path)!r}: not usable YAML: {error}") from None
    if content is None:
        raise UsageError(f"{what} {str(path)!r}: expected 'key: value' lines; the file is empty")
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UsageError(f"{what} {str(path)!r}: expected 'key: value' lines at the top, received a {kind}")
    for key in content:
        if not isinstance(key, str):
            raise UsageError(f"{what} {str(path)!r}: expected words as keys, received {str(key)[:40]!r}")
    return content


def read_text(path: Path, what: str) -> str:
    """The UTF-8 text of a small file (at most 1 MB); UsageError names ``what`` and the path."""
    if path.is_dir():
        raise UsageError(f"{what} {str(path)!r}: expected a file; it is a folder")
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except FileNotFoundError:
        raise UsageError(f"{what} {str(path)!r}: no such file (working directory: {Path.cwd()})") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{what} {str(path)!r}: can't be read: {error}") from None
    if len(content) > _LARGEST:
        raise UsageError(f"{what} {str(path)!r}: expected at most 1 MB of text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} {str(path)!r}: expected UTF-8 text; byte {error.start} is not") from None


def _place(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())
