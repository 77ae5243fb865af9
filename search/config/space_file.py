"""The syntax of a space file: each line gives a parameter a range, a list of values, or a single value.

    learning_rate: {low: 1e-4, high: 1e-2, log: true}
    unfreeze_depth: {low: 0, high: 2}
    head_units: [0, 64]
    augmentation_strength: 0.5

A range may have a ``step`` or ``log: true``. A single value fixes the parameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from search.config.choices import did_you_mean
from search.config.parameters import Parameter
from search.config.ranges import Choice, FloatRange, IntRange, Range
from search.config.validation_errors import quote_value
from search.records.record import ParameterValue
from trainables.errors import UsageError

_RANGE_KEYS = ("low", "high", "step", "log")
_SYNTAX = "a range such as {low: 0, high: 2}, a list of values, or one value"
_MAX_NUMBER = 1e15
"""Up to here every whole number is a float without rounding."""

Limits = tuple[str, Callable[[float], bool]]
"""What is expected of a number, in words, and the test for it."""


def parse_range(value: object, parameter: Parameter) -> Range:
    """Return the range that ``value``, as read from YAML, gives ``parameter``.

    Raises:
        UsageError: the syntax is wrong, or a value is outside the parameter's natural limits.
    """
    if isinstance(value, Mapping):
        return _parse_mapping(value, parameter)
    values = value if isinstance(value, list) else [value]
    return Choice(tuple(check_value(v, parameter) for v in values))


def check_value(value: object, parameter: Parameter) -> ParameterValue:
    """Return ``value`` in the type of ``parameter``.

    Raises:
        UsageError: it has another type, or is outside the parameter's natural limits.
    """
    if parameter.kind == "bool":
        if not isinstance(value, bool):
            raise UsageError(f"expected true or false, received {quote_value(value)}")
        return value
    if parameter.kind == "name":
        return parameter.range.check(value)
    number = _check_number(value, parameter, _limits(parameter))
    return int(number) if parameter.kind == "int" else number


def _parse_mapping(content: Mapping[object, object], parameter: Parameter) -> Range:
    if parameter.kind == "bool":
        raise UsageError(f"expected true, false or [false, true], received {quote_value(content)}")
    if parameter.kind == "name":
        raise UsageError(f"expected {parameter.range}, or a list of them, received {quote_value(content)}")
    for key in content:
        if key not in _RANGE_KEYS:
            hint = did_you_mean(str(key), _RANGE_KEYS)
            raise UsageError(
                f"expected {', '.join(_RANGE_KEYS)} in a range, received {quote_value(key)}{hint}"
            )
    missing = [key for key in ("low", "high") if key not in content]
    if missing:
        raise UsageError(f"expected low and high in a range, {' and '.join(missing)} missing")
    log = content.get("log", False)
    if not isinstance(log, bool):
        raise UsageError(f"log: expected true or false, received {quote_value(log)}")
    low, high = (_parse_bound(key, content[key], parameter) for key in ("low", "high"))
    step = content.get("step")
    if parameter.kind == "int":
        whole = 1 if step is None else int(_parse_step(step, parameter, "a whole number above 0"))
        return IntRange(int(low), int(high), whole, log)
    return FloatRange(
        low, high, None if step is None else _parse_step(step, parameter, "a number above 0"), log
    )


def _parse_bound(key: str, value: object, parameter: Parameter) -> float:
    try:
        return float(check_value(value, parameter))
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from None


def _parse_step(value: object, parameter: Parameter, expected: str) -> float:
    try:
        return _check_number(value, parameter, (expected, lambda number: number > 0))
    except UsageError as error:
        raise UsageError(f"step: {error}") from None


def _check_number(value: object, parameter: Parameter, limits: Limits) -> float:
    expected, fits = limits
    if isinstance(value, Mapping | list) or value is None:
        raise UsageError(f"expected {_SYNTAX}, received {quote_value(value)}")
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _MAX_NUMBER:
        raise UsageError(f"expected {expected}, received {quote_value(value)}")
    # A whole number may be written as 4.0 or 1e3.
    whole = parameter.kind != "int" or float(value).is_integer()
    if not (math.isfinite(value) and whole and fits(float(value))):
        raise UsageError(f"expected {expected}, received {quote_value(value)}")
    return float(value)


def _limits(parameter: Parameter) -> Limits:
    """Return the natural limits of a parameter's numbers."""
    minimum = -math.inf if parameter.minimum is None else parameter.minimum
    maximum = math.inf if parameter.maximum is None else parameter.maximum

    def fits(number: float) -> bool:
        above = number > minimum if parameter.minimum_excluded else number >= minimum
        below = number < maximum if parameter.maximum_excluded else number <= maximum
        return above and below

    kind = "a whole number" if parameter.kind == "int" else "a number"
    left = "above" if parameter.minimum_excluded else "from"
    right = "below" if parameter.maximum_excluded else "to"
    joint = " and " if parameter.minimum_excluded and parameter.maximum_excluded else " "
    return f"{kind} {left} {minimum:g}{joint}{right} {maximum:g}", fits
