"""Turn pydantic's errors into messages that name the option, what was expected, and what was received."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, get_args

from search.config.choices import did_you_mean

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

_MAX_PROBLEMS = 10
"""A message lists this many problems and counts the others."""

_MAX_VALUE = 200
"""A message shows this many letters of a value, and a third of them of a key."""

_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def validation_message(
    error: ValidationError,
    fields: Mapping[str, FieldInfo],
    label: Callable[[str], str],
) -> str:
    """Return one line for each problem.

    Args:
        error: what pydantic found.
        fields: the fields of the model, by name.
        label: turns a field's name into what the user wrote, such as ``--trials`` or ``search.yaml: trials``.
    """
    details = error.errors(include_url=False)
    lines = [_line(detail, fields, label) for detail in details[:_MAX_PROBLEMS]]
    if len(details) > _MAX_PROBLEMS:
        lines.append(f"and {len(details) - _MAX_PROBLEMS:,} more problems")
    if any(detail["type"] == "extra_forbidden" for detail in details):
        lines.append(f"valid keys: {', '.join(_names(fields))}")
    return "\n".join(lines)


def quote_value(value: object) -> str:
    """Return ``value`` as users write it, cut short: ``nothing`` for None, ``true`` for True."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    return _cut(_REPR.repr(value), _MAX_VALUE)


def quote_key(key: str) -> str:
    """Return a key as the user wrote it, escaped if it is not printable, cut short if it is long."""
    return _cut(key if key.isprintable() else repr(key), _MAX_VALUE // 3)


def _cut(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else f"{text[:max_length]}…"


# reprlib, unlike repr, is safe for values of any size: lists within lists, multiplied by YAML aliases, fill the memory.
_REPR = reprlib.Repr()
_REPR.maxlevel = 2


def _line(detail: ErrorDetails, fields: Mapping[str, FieldInfo], label: Callable[[str], str]) -> str:
    if not detail["loc"]:
        return f"expected keys with values, received {quote_value(detail['input'])}"
    key = str(detail["loc"][0])
    if detail["type"] == "extra_forbidden":
        return f"{label(key)}: unknown key{did_you_mean(key, _names(fields))}"
    if detail["type"] == "value_error":
        expected = str(detail["ctx"]["error"])
    else:
        # pydantic names a field with an alias by that alias.
        expected = f"expected {_expected(fields[key] if key in fields else _names(fields)[key])}"
    return f"{label(key)}: {expected}, received {quote_value(detail['input'])}"


def _names(fields: Mapping[str, FieldInfo]) -> dict[str, FieldInfo]:
    """Return the fields by the names that users write, in alphabetical order."""
    return dict(
        sorted(((field.alias or name, field) for name, field in fields.items()), key=lambda pair: pair[0])
    )


def _expected(field: FieldInfo) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number"}
    return words.get(_base(field.annotation), "text") + _bounds(field)


def _base(annotation: Any) -> Any:
    """Return the plain type inside ``Annotated[…]`` and ``… | None``."""
    arguments = get_args(annotation)
    return _base(arguments[0]) if arguments else annotation


def _bounds(field: FieldInfo) -> str:
    limits = {name: getattr(rule, name) for rule in field.metadata for name in _BOUNDS if hasattr(rule, name)}
    if limits.keys() == {"ge", "le"}:
        return f" from {limits['ge']:,} to {limits['le']:,}"
    found = [f"{_BOUNDS[name]} {limit:,}" for name, limit in limits.items()]
    return " " + " and ".join(found) if found else ""
