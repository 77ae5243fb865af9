"""Convert the numbers of a search to points of MLflow metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from datetime import datetime

from search.records.metrics import EPOCH_METRICS, objective_column
from search.records.record import Outcome, SearchRecord, TrialRecord
from trainables.cost_account import CostCounts

COST_COUNTERS = tuple(counter.name for counter in fields(CostCounts))
"""The counters of a trial's cost, which are part of the names of MLflow's metrics."""

SYSTEM_PREFIX = "system/"
"""Prefix of metrics that MLflow shows on a page of their own, so that they do not hide the learning curves."""


@dataclass(frozen=True)
class MetricPoint:
    """One value of one metric; ``time`` is in milliseconds since 1970. The value is finite or NaN."""

    metric: str
    step: int
    value: float
    time: int


def epoch_points(trial: TrialRecord) -> tuple[MetricPoint, ...]:
    """Return the metrics of every epoch; the step is the epoch.

    Times are computed from the record, so that a value that is delivered twice is the same row.
    """
    points, time = [], float(milliseconds(trial.started))
    for epoch in trial.epochs:
        time += 1000 * epoch.epoch_seconds if math.isfinite(epoch.epoch_seconds) else 0
        points += [MetricPoint(m, epoch.epoch, _finite(epoch.metric(m)), int(time)) for m in EPOCH_METRICS]
    return tuple(points)


def final_points(trial: TrialRecord, metric: str, outcome: Outcome | None) -> tuple[MetricPoint, ...]:
    """Return what is known once a trial has ended: best values, seconds by stage, cost and test accuracy."""
    if not trial.finished:
        return ()
    values = {f"{SYSTEM_PREFIX}seconds_{stage}": seconds for stage, seconds in trial.stages.items()}
    values |= {
        f"{SYSTEM_PREFIX}cost_{name}": float(trial.cost[name]) for name in COST_COUNTERS if name in trial.cost
    }
    if trial.value is not None:
        values[f"best_{metric}"] = trial.value
    values |= {objective_column(name): value for name, value in trial.objectives.items()}
    if outcome is not None:
        values["test_accuracy"] = outcome.headline_accuracy.estimate
        values["registered_test_accuracy"] = outcome.test_accuracy.estimate
    time = milliseconds(trial.ended)
    return tuple(MetricPoint(name, len(trial.epochs), _finite(value), time) for name, value in values.items())


def best_curve(record: SearchRecord) -> tuple[MetricPoint, ...]:
    """Return the best objective so far, one point for each improvement; the step counts finished trials."""
    ended = [t for t in record.trials if t.finished and t.state != "failed"]
    # The number makes the order unique: the same record must always give the same points, because MLflow appends them.
    ended.sort(key=lambda t: (milliseconds(t.ended), t.number))
    sign = 1 if record.direction == "maximize" else -1
    points: list[MetricPoint] = []
    best = -math.inf
    for step, trial in enumerate(ended, start=1):
        if trial.value is not None and sign * trial.value > best:
            best = sign * trial.value
            points.append(MetricPoint(f"best_{record.metric}", step, trial.value, milliseconds(trial.ended)))
    return tuple(points)


def milliseconds(moment: datetime | None) -> int:
    """Return milliseconds since 1970; 0 for None."""
    return int(moment.timestamp() * 1000) if moment else 0


def _finite(value: float) -> float:
    """Return NaN in place of an infinite value, which MLflow's databases would store as 1.8e308."""
    return value if math.isfinite(value) else math.nan
