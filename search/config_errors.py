"""Pydantic's findings in plain words: the key, what was expected, what came."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, get_args

from search.choices import nearest

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def explain(
    error: ValidationError,
    fields: Mapping[str, FieldInfo],
    label: Callable[[str], str],
) -> str:
    """One line a problem; ``label`` turns a key into what the user wrote (``--trials`` or ``trials``)."""
    return "\n".join(_line(detail, fields, label) for detail in error.errors(include_url=False))


def shown(value: object) -> str:
    """``value`` as the user knows it, cut short."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    return reprlib.repr(value)


def _line(detail: ErrorDetails, fields: Mapping[str, FieldInfo], label: Callable[[str], str]) -> str:
    if not detail["loc"]:
        return f"expected keys with values, received {shown(detail['input'])}"
    key = str(detail["loc"][0])
    by_alias = {field.alias or name: field for name, field in fields.items()}
    if detail["type"] == "extra_forbidden":
        valid = sorted(by_alias)
        return f"{label(key)}: unknown key{nearest(key, valid)}; valid keys: {', '.join(valid)}"
    if detail["type"] == "value_error":
        expected = str(detail["ctx"]["error"])
    else:
        expected = f"expected {_expected(fields[key] if key in fields else by_alias[key])}"
    return f"{label(key)}: {expected}, received {shown(detail['input'])}"


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
