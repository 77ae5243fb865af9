"""Pydantic's findings in plain words: the key, what was expected, what came."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, get_args

from search.config.choices import did_you_mean

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

_MOST = 10
"""Problems that are worth reading at once."""

_LONGEST = 200
"""Letters of a value that are worth reading; of a key, a third of them."""

_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def validation_message(
    error: ValidationError,
    fields: Mapping[str, FieldInfo],
    label: Callable[[str], str],
) -> str:
    """One line a problem; ``label`` turns a key into what the user wrote (``--trials`` or ``trials``)."""
    details = error.errors(include_url=False)
    lines = [_line(detail, fields, label) for detail in details[:_MOST]]
    if len(details) > _MOST:
        lines.append(f"and {len(details) - _MOST:,} more problems")
    if any(detail["type"] == "extra_forbidden" for detail in details):
        lines.append(f"valid keys: {', '.join(_names(fields))}")
    return "\n".join(lines)


def format_value(value: object) -> str:
    """``value`` as the user knows it, cut short."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    return _cut(_REPR.repr(value), _LONGEST)


def format_key(key: str) -> str:
    """A key as the user wrote it; escaped where it can't be shown, cut where it is long."""
    return _cut(key if key.isprintable() else repr(key), _LONGEST // 3)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


_REPR = reprlib.Repr()
_REPR.maxlevel = 2
"""Lists of lists of lists, and YAML's aliases, multiply."""


def _line(detail: ErrorDetails, fields: Mapping[str, FieldInfo], label: Callable[[str], str]) -> str:
    if not detail["loc"]:
        return f"expected keys with values, received {format_value(detail['input'])}"
    key = str(detail["loc"][0])
    if detail["type"] == "extra_forbidden":
        return f"{label(key)}: unknown key{did_you_mean(key, _names(fields))}"
    if detail["type"] == "value_error":
        expected = str(detail["ctx"]["error"])
    else:
        expected = f"expected {_expected(fields[key] if key in fields else _names(fields)[key])}"
    return f"{label(key)}: {expected}, received {format_value(detail['input'])}"


def _names(fields: Mapping[str, FieldInfo]) -> dict[str, FieldInfo]:
    """The fields by the names that users write, in their order."""
    return dict(
        sorted(((field.alias or name, field) for name, field in fields.items()), key=lambda pair: pair[0])
    )


def _expected(field: FieldInfo) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number"}
    return words.get(_base(field.annotation), "text") + _bounds(field)


def _base(annotation: Any) -> Any:
    """The plain type inside ``Annotated[…]`` and ``… | None``."""
    arguments = get_args(annotation)
    return _base(arguments[0]) if arguments else annotation


def _bounds(field: FieldInfo) -> str:
    limits = {name: getattr(rule, name) for rule in field.metadata for name in _BOUNDS if hasattr(rule, name)}
    if limits.keys() == {"ge", "le"}:
        return f" from {limits['ge']:,} to {limits['le']:,}"
    found = [f"{_BOUNDS[name]} {limit:,}" for name, limit in limits.items()]
    return " " + " and ".join(found) if found else ""
