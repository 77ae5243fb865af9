"""The values that one parameter may take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from search.config.validation_errors import format_value
from search.records.record import ParameterValue
from trainables.errors import UsageError

EDGE_SHARE = 0.02
"""Share of a range's (log) width within which a value counts as being on its edge."""

_MOST_STEPS = 1_000_000
"""More are no steps, and numbers that are so near to each other can't be told apart."""

_SHOWN = 10
"""Values that are worth reading at once."""


class SupportsSuggest(Protocol):
    """What an Optuna trial offers."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number from ``low`` to ``high``."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of ``choices``."""
        ...


@dataclass(frozen=True)
class IntRange:
    """Whole numbers from ``low`` to ``high``, both included, in steps of ``step``; or evenly by logarithm."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.step, self.log)
        if self.log and self.step != 1:
            raise UsageError(f"expected either step or log: true, received step {self.step} and log: true")

    def suggest(self, trial: SupportsSuggest, name: str) -> int:
        """A value for ``trial``."""
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def check(self, value: object) -> int:
        """``value`` if it is one of the range's; UsageError says what was expected."""
        number = _between(self, value)
        if (number - self.low) % self.step:
            raise _unfit(self, value)
        return int(number)

    @property
    def bounds(self) -> tuple[float, float]:
        """``low`` and ``high``."""
        return self.low, self.high

    def position(self, value: float) -> float:
        """Where ``value`` lies: 0 at ``low``, 1 at ``high``."""
        return _position(value, self.low, self.high, self.log)

    def __str__(self) -> str:
        step = f" in steps of {self.step}" if self.step > 1 else ""
        return f"a whole number from {self.low} to {self.high}{step}"


@dataclass(frozen=True)
class FloatRange:
    """Numbers from ``low`` to ``high``: any, in steps of ``step``, or evenly by logarithm."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.step, self.log)
        if self.log and self.step is not None:
            raise UsageError(f"expected either step or log: true, received step {self.step:g} and log: true")

    def suggest(self, trial: SupportsSuggest, name: str) -> float:
        """A value for ``trial``."""
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def check(self, value: object) -> float:
        """``value`` if it is one of the range's; UsageError says what was expected."""
        number = _between(self, value)
        if self.step is not None and not _whole_steps(number - self.low, self.step):
            raise _unfit(self, value)
        return float(number)

    @property
    def bounds(self) -> tuple[float, float]:
        """``low`` and ``high``."""
        return self.low, self.high

    def position(self, value: float) -> float:
        """Where ``value`` lies: 0 at ``low``, 1 at ``high``."""
        return _position(value, self.low, self.high, self.log)

    def __str__(self) -> str:
        step = f" in steps of {self.step:g}" if self.step is not None else ""
        return f"a number from {self.low:g} to {self.high:g}{step}"


@dataclass(frozen=True)
class Choice:
    """A few values; one alone is fixed, not searched."""

    values: tuple[ParameterValue, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise UsageError("expected at least one value, received an empty list")
        if len({(isinstance(v, bool), v) for v in self.values}) < len(self.values):
            raise UsageError(f"expected different values, received {format_value(list(self.values))}")

    def suggest(self, trial: SupportsSuggest, name: str) -> ParameterValue:
        """A value for ``trial``."""
        chosen: ParameterValue = trial.suggest_categorical(name, list(self.values))
        return chosen

    def check(self, value: object) -> ParameterValue:
        """``value`` if it is one of the values; UsageError says what was expected."""
        for known in self.values:
            if known == value and isinstance(known, bool) == isinstance(value, bool):
                return known
        raise _unfit(self, value)

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest of three or more numbers; of other values, no bounds."""
        numbers = [v for v in self.values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < max(3, len(self.values)):
            return -math.inf, math.inf
        return min(numbers), max(numbers)

    def position(self, value: float) -> float:
        """Where ``value`` lies: 0 at the least, 1 at the greatest; without bounds in the middle."""
        low, high = self.bounds
        return 0.5 if math.isinf(low) else _position(value, low, high, log=False)

    def __str__(self) -> str:
        words = [str(v).lower() if isinstance(v, bool) else f"{v}" for v in self.values[:_SHOWN]]
        more = f" and {len(self.values) - _SHOWN:,} more" if len(self.values) > _SHOWN else ""
        return words[0] if len(self.values) == 1 else f"one of {', '.join(words)}{more}"


Range = IntRange | FloatRange | Choice


def _between(values: IntRange | FloatRange, value: object) -> int | float:
    """``value`` if it is a number from low to high; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unfit(values, value)
    if not values.low <= value <= values.high:
        raise _unfit(values, value)
    return value


def _unfit(values: Range, value: object) -> UsageError:
    return UsageError(f"expected {values}, received {format_value(value)}")


def _check_range(low: float, high: float, step: float | None, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise UsageError(
            f"expected low and high with low at most high, received low {low:g} and high {high:g}"
        )
    if log and low <= 0:
        raise UsageError(f"expected a low above 0 with log: true, received low {low:g}")
    if step is not None and not 0 < step < math.inf:
        raise UsageError(f"expected a step above 0, received step {step:g}")
    if step is not None and (high - low) / step > _MOST_STEPS:
        raise UsageError(f"expected at most {_MOST_STEPS:,} steps from low to high, received step {step:g}")
    if step is not None and (not _whole_steps(high - low, step) or low < high < low + step / 2):
        last = low + step * math.floor((high - low) / step)
        raise UsageError(
            f"expected high to be low plus whole steps of {step:g}, such as {last:g}, received high {high:g}"
        )


def _whole_steps(width: float, step: float) -> bool:
    steps = width / step
    return math.isclose(steps, round(steps), abs_tol=1e-6)


def _position(value: float, low: float, high: float, log: bool) -> float:
    if low == high:
        return 0.5
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)
