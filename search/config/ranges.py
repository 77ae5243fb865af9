"""The values that a parameter may take: a range of numbers, or a list."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from search.config.validation_errors import quote_value
from search.records.record import ParameterValue
from trainables.errors import UsageError

EDGE_SHARE = 0.02
"""A value counts as lying at the edge of a range if it is within this fraction of the range's width, or of the width of
its logarithm if the range is logarithmic."""

_MAX_STEPS = 1_000_000
"""With more steps, rounding errors would exceed the tolerance of :func:`_whole_steps`."""

_MAX_SHOWN = 10
"""Messages show this many values of a list and count the others."""


class SupportsSuggest(Protocol):
    """The methods of an Optuna trial that suggest values. Declared here so that a space needs no import of Optuna."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return a whole number from ``low`` to ``high``, both included."""
        ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a number from ``low`` to ``high``."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of ``choices``."""
        ...


@dataclass(frozen=True)
class IntRange:
    """Whole numbers from ``low`` to ``high``, both included.

    They are suggested in steps of ``step`` or, with ``log``, evenly by their logarithm.
    """

    low: int
    high: int
    step: int = 1
    log: bool = False

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.step, self.log)
        if self.log and self.step != 1:
            raise UsageError(f"expected either step or log: true, received step {self.step} and log: true")

    def suggest(self, trial: SupportsSuggest, name: str) -> int:
        """Let ``trial`` suggest a value for the parameter ``name``."""
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def check(self, value: object) -> int:
        """Return ``value`` if it lies in the range, else raise UsageError."""
        number = _between(self, value)
        if (number - self.low) % self.step:
            raise _unfit(self, value)
        return int(number)

    @property
    def bounds(self) -> tuple[float, float]:
        """``low`` and ``high``."""
        return self.low, self.high

    def position(self, value: float) -> float:
        """Return where ``value`` lies in the range: 0 at ``low``, 1 at ``high``."""
        return _position(value, self.low, self.high, self.log)

    def __str__(self) -> str:
        step = f" in steps of {self.step}" if self.step > 1 else ""
        return f"a whole number from {self.low} to {self.high}{step}"


@dataclass(frozen=True)
class FloatRange:
    """Numbers from ``low`` to ``high``.

    They are suggested evenly, in steps of ``step`` or, with ``log``, evenly by their logarithm.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.step, self.log)
        if self.log and self.step is not None:
            raise UsageError(f"expected either step or log: true, received step {self.step:g} and log: true")

    def suggest(self, trial: SupportsSuggest, name: str) -> float:
        """Let ``trial`` suggest a value for the parameter ``name``."""
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def check(self, value: object) -> float:
        """Return ``value`` if it lies in the range, else raise UsageError."""
        number = _between(self, value)
        if self.step is not None and not _whole_steps(number - self.low, self.step):
            raise _unfit(self, value)
        return float(number)

    @property
    def bounds(self) -> tuple[float, float]:
        """``low`` and ``high``."""
        return self.low, self.high

    def position(self, value: float) -> float:
        """Return where ``value`` lies in the range: 0 at ``low``, 1 at ``high``."""
        return _position(value, self.low, self.high, self.log)

    def __str__(self) -> str:
        step = f" in steps of {self.step:g}" if self.step is not None else ""
        return f"a number from {self.low:g} to {self.high:g}{step}"


@dataclass(frozen=True)
class Choice:
    """A list of values. A single value is fixed, not searched."""

    values: tuple[ParameterValue, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise UsageError("expected at least one value, received an empty list")
        # The type is compared, too, here and in check(): True equals 1 in Python, but not in a configuration.
        if len({(isinstance(v, bool), v) for v in self.values}) < len(self.values):
            raise UsageError(f"expected different values, received {quote_value(list(self.values))}")

    def suggest(self, trial: SupportsSuggest, name: str) -> ParameterValue:
        """Let ``trial`` suggest a value for the parameter ``name``."""
        chosen: ParameterValue = trial.suggest_categorical(name, list(self.values))
        return chosen

    def check(self, value: object) -> ParameterValue:
        """Return ``value`` if it is one of the values, else raise UsageError."""
        for known in self.values:
            if known == value and isinstance(known, bool) == isinstance(value, bool):
                return known
        raise _unfit(self, value)

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest of three or more numbers, else minus and plus infinity.

        One or two numbers, or names, say nothing about better values beyond them.
        """
        numbers = [v for v in self.values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < max(3, len(self.values)):
            return -math.inf, math.inf
        return min(numbers), max(numbers)

    def position(self, value: float) -> float:
        """Return where ``value`` lies: 0 at the smallest value, 1 at the largest; 0.5 if there are no bounds."""
        low, high = self.bounds
        return 0.5 if math.isinf(low) else _position(value, low, high, log=False)

    def __str__(self) -> str:
        words = [str(v).lower() if isinstance(v, bool) else f"{v}" for v in self.values[:_MAX_SHOWN]]
        more = f" and {len(self.values) - _MAX_SHOWN:,} more" if len(self.values) > _MAX_SHOWN else ""
        return words[0] if len(self.values) == 1 else f"one of {', '.join(words)}{more}"


Range = IntRange | FloatRange | Choice


def _between(values: IntRange | FloatRange, value: object) -> int | float:
    """Return ``value`` if it is a number from low to high. A boolean is not a number here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unfit(values, value)
    if not values.low <= value <= values.high:
        raise _unfit(values, value)
    return value


def _unfit(values: Range, value: object) -> UsageError:
    return UsageError(f"expected {values}, received {quote_value(value)}")


def _check_range(low: float, high: float, step: float | None, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise UsageError(
            f"expected low and high with low at most high, received low {low:g} and high {high:g}"
        )
    if log and low <= 0:
        raise UsageError(f"expected a low above 0 with log: true, received low {low:g}")
    if step is not None and not 0 < step < math.inf:
        raise UsageError(f"expected a step above 0, received step {step:g}")
    if step is not None and (high - low) / step > _MAX_STEPS:
        raise UsageError(f"expected at most {_MAX_STEPS:,} steps from low to high, received step {step:g}")
    # A width far below one step passes as 0 whole steps within the tolerance, hence the second condition.
    if step is not None and (not _whole_steps(high - low, step) or low < high < low + step / 2):
        last = low + step * math.floor((high - low) / step)
        raise UsageError(
            f"expected high to be low plus whole steps of {step:g}, such as {last:g}, received high {high:g}"
        )


def _whole_steps(width: float, step: float) -> bool:
    # Decimal steps are not exact in binary: (0.3 - 0.1) / 0.1 is not exactly 2.
    steps = width / step
    return math.isclose(steps, round(steps), abs_tol=1e-6)


def _position(value: float, low: float, high: float, log: bool) -> float:
    if low == high:
        return 0.5
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)
