"""What a search optimises: one objective, or several at once. How ``--objective`` and ``--metric`` go together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from search.config.choices import SAMPLERS
from search.config.validation_errors import format_value
from search.records.metrics import EPOCH_METRIC_DIRECTIONS, EPOCH_METRICS, OBJECTIVES, Direction
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import UsageError

SINGLE_OBJECTIVE_SAMPLERS = frozenset({"cmaes"})
"""Samplers that rank trials by one number."""


def direction(name: str) -> Direction:
    """Whether the objective of this name is maximised or minimised."""
    return "maximize" if OBJECTIVES[name] == "maximize" else "minimize"


def resolve_objectives(data: Mapping[str, Any], label: Callable[[str], str]) -> dict[str, Any]:
    """Settings of a search in which ``metric`` is the first objective, and ``objective`` holds several or is not there.

    Names that are no objectives are left for whoever checks them.

    Raises:
        UsageError: ``metric`` contradicts the first objective.
    """
    given = data.get("objective")
    names = list(given) if isinstance(given, list | tuple) else [given]
    if not names or not isinstance(names[0], str):
        return dict(data)
    first = _plain(names[0])
    metric = data.get("metric", first)
    if isinstance(metric, str) and _plain(metric) in EPOCH_METRIC_DIRECTIONS and _plain(metric) != first:
        raise UsageError(
            f"{label('objective')}, {label('metric')}: expected one of the two, or the same objective first in both, "
            f"received {format_value(given)} and {format_value(metric)}"
        )
    if first not in EPOCH_METRIC_DIRECTIONS:
        return dict(data)
    rest = {key: value for key, value in data.items() if key != "objective"} if len(names) == 1 else data
    return {**rest, "metric": metric}


def values_at_best(
    epochs: Sequence[EpochMetrics], names: Sequence[str], costs: Mapping[str, float]
) -> dict[str, float]:
    """The value of each objective of a trial that has run ``epochs``; only its ``costs`` before the first finite one.

    Those that training improves are of the epoch that is best in the first objective; of several the one with the
    lowest validation loss. ``epoch_seconds`` is the median over all epochs, unless it is the first.
    """
    first, sign = names[0], -1.0 if direction(names[0]) == "maximize" else 1.0
    known = [epoch for epoch in epochs if math.isfinite(epoch.metric(first))]
    found = {name: float(costs[name]) for name in names if name in costs}
    if not known:
        return found
    best = min(known, key=lambda epoch: (sign * epoch.metric(first), _or_worst(epoch.val_loss), epoch.epoch))
    trained = {name: best.metric(name) for name in names if name in EPOCH_METRICS}
    if "epoch_seconds" in trained and first != "epoch_seconds":
        trained["epoch_seconds"] = median(epoch.epoch_seconds for epoch in epochs)
    return {name: {**trained, **found}[name] for name in names if name in trained or name in found}


def check_sampler(name: str, objectives: int) -> None:
    """Refuse a sampler that can't do with so many objectives.

    Raises:
        UsageError: it can't.
    """
    if objectives > 1 and name in SINGLE_OBJECTIVE_SAMPLERS:
        others = ", ".join(sampler for sampler in SAMPLERS if sampler not in SINGLE_OBJECTIVE_SAMPLERS)
        raise UsageError(
            f"sampler: expected one of {others} with {objectives} objectives (CMA-ES ranks trials by one number), "
            f"received {name!r}"
        )


def _or_worst(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _plain(name: str) -> str:
    return name.strip().lower()
