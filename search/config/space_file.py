"""The syntax of a space file: one parameter a line, a range, a list of values or a single value.

learning_rate: {low: 1e-4, high: 1e-2, log: true}
unfreeze_depth: {low: 0, high: 2}
head_units: [0, 64]
augmentation_strength: 0.5
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from search.config.choices import did_you_mean
from search.config.parameters import Parameter
from search.config.ranges import Choice, FloatRange, IntRange, Range
from search.config.validation_errors import format_value
from search.records.record import ParameterValue
from trainables.errors import UsageError

_SYNTAX = "a range such as {low: 0, high: 2}, a list of values, or one value"


def parse_range(value: object, parameter: Parameter) -> Range:
    """The range that ``value`` (from YAML) writes down for ``parameter``; UsageError says what is wrong."""
    if isinstance(value, Mapping):
        return _range(value, parameter)
    values = value if isinstance(value, list) else [value]
    return Choice(tuple(check_value(v, parameter) for v in values))


def check_value(value: object, parameter: Parameter) -> ParameterValue:
    """``value`` as the parameter's kind, within its natural limits."""
    if parameter.kind == "bool":
        if not isinstance(value, bool):
            raise UsageError(f"expected true or false, received {format_value(value)}")
        return value
    if parameter.kind == "name":
        return parameter.range.check(value)
    number = _number(value, parameter, _limits(parameter))
    return int(number) if parameter.kind == "int" else number


def _range(content: Mapping[object, object], parameter: Parameter) -> Range:
    if parameter.kind == "bool":
        raise UsageError(f"expected true, false or [false, true], received {format_value(content)}")
    if parameter.kind == "name":
        raise UsageError(f"expected {parameter.range}, or a list of them, received {format_value(content)}")
    for key in content:
        if key not in ("low", "high", "step", "log"):
            hint = did_you_mean(str(key), ("low", "high", "step", "log"))
            raise UsageError(f"expected low, high, step, log in a range, received {format_value(key)}{hint}")
    missing = [key for key in ("low", "high") if key not in content]
    if missing:
        raise UsageError(f"expected low and high in a range, {' and '.join(missing)} missing")
    log = content.get("log", False)
    if not isinstance(log, bool):
        raise UsageError(f"log: expected true or false, received {format_value(log)}")
    low, high = (_within(key, content[key], parameter) for key in ("low", "high"))
    step = content.get("step")
    if parameter.kind == "int":
        whole = 1 if step is None else int(_named("step", step, parameter, "a whole number above 0"))
        return IntRange(int(low), int(high), whole, log)
    return FloatRange(
        low, high, None if step is None else _named("step", step, parameter, "a number above 0"), log
    )


def _within(key: str, value: object, parameter: Parameter) -> float:
    try:
        return float(check_value(value, parameter))
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from None


def _named(key: str, value: object, parameter: Parameter, expected: str) -> float:
    try:
        return _number(value, parameter, (expected, lambda number: number > 0))
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from None


Limits = tuple[str, Callable[[float], bool]]


def _number(value: object, parameter: Parameter, limits: Limits) -> float:
    expected, fits = limits
    if isinstance(value, Mapping | list) or value is None:
        raise UsageError(f"expected {_SYNTAX}, received {format_value(value)}")
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15:
        raise UsageError(f"expected {expected}, received {format_value(value)}")
    whole = parameter.kind != "int" or float(value).is_integer()
    if not (math.isfinite(value) and whole and fits(float(value))):
        raise UsageError(f"expected {expected}, received {format_value(value)}")
    return float(value)


def _limits(parameter: Parameter) -> Limits:
    least = -math.inf if parameter.least is None else parameter.least
    most = math.inf if parameter.most is None else parameter.most

    def fits(number: float) -> bool:
        above = number > least if parameter.open_least else number >= least
        below = number < most if parameter.open_most else number <= most
        return above and below

    kind = "a whole number" if parameter.kind == "int" else "a number"
    left = "above" if parameter.open_least else "from"
    right = "below" if parameter.open_most else "to"
    joint = " and " if parameter.open_least and parameter.open_most else " "
    return f"{kind} {left} {least:g}{joint}{right} {most:g}", fits
