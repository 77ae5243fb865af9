"""The objectives of a search: how ``--metric`` and ``--objective`` combine, and the values that a trial reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from search.config.choices import SAMPLERS
from search.config.validation_errors import quote_value
from search.records.metrics import EPOCH_METRICS, METRICS, Direction
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import UsageError


def direction(name: str) -> Direction:
    """Return whether the objective called ``name`` is maximised or minimised."""
    return METRICS[name].direction


def resolve_objectives(data: Mapping[str, Any], label: Callable[[str], str]) -> dict[str, Any]:
    """Return the options so that ``metric`` is the first objective, and ``objective`` holds several or is absent.

    Everything that reads a configuration can then take the first objective from ``metric``. Invalid names are left in
    place; the types of the fields refuse them later.

    Args:
        data: options of a search, not yet checked.
        label: turns a field's name into what the user wrote.

    Raises:
        UsageError: ``metric`` contradicts the first objective.
    """
    given = data.get("objective")
    names = list(given) if isinstance(given, list | tuple) else [given]
    # Any value may come from a YAML file. What is not a name is refused later, by the type of the field.
    if not names or not isinstance(names[0], str):
        return dict(data)
    first = _plain(names[0])
    metric = data.get("metric", first)
    if isinstance(metric, str) and _plain(metric) in EPOCH_METRICS and _plain(metric) != first:
        raise UsageError(
            f"{label('objective')}, {label('metric')}: expected one of the two, or the same objective first in both, "
            f"received {quote_value(given)} and {quote_value(metric)}"
        )
    if first not in EPOCH_METRICS:
        return dict(data)
    # A single objective is the same search as --metric alone, so both are stored the same way.
    rest = {key: value for key, value in data.items() if key != "objective"} if len(names) == 1 else data
    return {**rest, "metric": metric}


def values_at_best(
    epochs: Sequence[EpochMetrics], names: Sequence[str], costs: Mapping[str, float]
) -> dict[str, float]:
    """Return the value of each objective of a trial.

    The metrics of an epoch are taken from the epoch that is best in the first objective; among equally good epochs,
    from the one with the lowest validation loss. ``epoch_seconds`` is the median over all epochs, unless it is the
    first objective, because the duration of a single epoch depends on what else the machine does.

    Args:
        epochs: the trial's epochs so far.
        names: names of the objectives.
        costs: serving costs of the trial's architecture, as far as they are known.

    Returns:
        Values by name. Before the first epoch with a finite value of the first objective, they are the costs alone.
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
    """Check that the sampler ``name`` works with this number of objectives.

    Raises:
        UsageError: there are several, and it ranks trials by one number.
    """
    if objectives > 1 and SAMPLERS[name].single_objective_only:
        others = ", ".join(other for other, sampler in SAMPLERS.items() if not sampler.single_objective_only)
        raise UsageError(
            f"sampler: expected one of {others} with {objectives} objectives (CMA-ES ranks trials by one number), "
            f"received {name!r}"
        )


def _or_worst(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _plain(name: str) -> str:
    return name.strip().lower()
