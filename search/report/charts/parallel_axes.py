"""The axes of the parallel coordinates: where on its axis, from 0 to 1, each trial lies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from search.records.record import ParameterValue, SearchRecord, TrialRecord
from search.report.analysis.ranking import objective_domain
from search.report.analysis.wording import label, number
from search.report.charts.axes import is_logarithmic, value_format

UNUSED = -0.13
"""Where a trial lies that has no use for the parameter: below the axis."""
MOST_NAMED = 8


@dataclass(frozen=True)
class Axis:
    """One axis. ``domain`` is (low, high), or all the names of a ``point`` axis from bottom to top.

    ``places`` maps trial numbers to positions from 0 to 1; trials without the parameter are not in it.
    """

    name: str
    kind: Literal["linear", "log", "point"]
    domain: tuple[Any, ...]
    places: Mapping[int, float]
    format: str = ".3~g"

    @property
    def label(self) -> str:
        """The name in words."""
        return label(self.name)


def parameter_axes(record: SearchRecord, trials: Sequence[TrialRecord]) -> list[Axis]:
    """One axis for each parameter that any of ``trials`` has, the most important one last."""
    names = list(dict.fromkeys(name for t in trials for name in t.params))
    names.sort(key=lambda name: record.importances.get(name, 0.0))
    return [_axis(name, {t.number: t.params[name] for t in trials if name in t.params}) for name in names]


def objective_axis(record: SearchRecord, trials: Sequence[TrialRecord]) -> Axis:
    """The objective; outliers lie on the end of the axis."""
    values = {t.number: t.value for t in trials if t.value is not None}
    low, high = objective_domain(record)
    places = {n: min(max((value - low) / (high - low), 0.0), 1.0) for n, value in values.items()}
    return Axis(record.metric, "linear", (low, high), places, value_format(record))


def _axis(name: str, values: Mapping[int, ParameterValue]) -> Axis:
    found = list(values.values())
    whole = all(isinstance(v, int) for v in found) and len(set(found)) <= MOST_NAMED
    if whole or any(isinstance(v, bool | str) for v in found):
        return _named(name, values)
    numbers = {n: float(v) for n, v in values.items()}
    low, high = min(numbers.values()), max(numbers.values())
    if is_logarithmic(name, found):
        low, high = (low, high) if low < high else (low / 2, high * 2)
        span = math.log(high / low)
        return Axis(
            name, "log", (low, high), {n: math.log(v / low) / span for n, v in numbers.items()}, ".1~e"
        )
    low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
    return Axis(name, "linear", (low, high), {n: (v - low) / (high - low) for n, v in numbers.items()})


def _named(name: str, values: Mapping[int, ParameterValue]) -> Axis:
    """An axis of a few values with equal distances; trials that share one are drawn a little apart."""
    texts = any(isinstance(v, str) for v in values.values())
    order = sorted(set(values.values()), key=str if texts else float)
    steps = max(len(order) - 1, 1)
    middle = 0.5 if len(order) == 1 else 0.0
    apart = min(0.05, 0.25 / steps)
    places = {
        n: middle + order.index(v) / steps + apart * ((n * 0.618034) % 1 - 0.5) for n, v in values.items()
    }
    return Axis(name, "point", tuple(number(v) for v in order), places)
