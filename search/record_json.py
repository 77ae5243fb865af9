"""A search as one JSON object, for programs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, get_args

from search.cost import search_cost
from search.record import Interval, Outcome, SearchRecord, State, TrialRecord


def record_json(
    record: SearchRecord, report: Path | None = None, model_uri: str | None = None
) -> dict[str, Any]:
    """Name, counts, best trial, outcome and places of a search; every number is finite or null."""
    return {
        "search": record.name,
        "task": record.task.name,
        "backbone": record.backbone.name,
        "method": record.config.get("method"),
        "metric": record.metric,
        "requested": record.requested,
        "trials": {state: record.count(state) for state in get_args(State)},
        "best": _best(record.best),
        "edges": list(record.edges),
        "outcome": _outcome(record.outcome),
        "stopped": record.stopped,
        "elapsed_seconds": round(record.elapsed, 3),
        "training_seconds": round(sum(t.seconds for t in record.trials if math.isfinite(t.seconds)), 3),
        "cost": search_cost(record).describe(),
        "model_uri": model_uri,
        "report": str(report) if report is not None else None,
        "storage": record.storage,
        "tracking_uri": record.tracking_uri,
    }


def _best(trial: TrialRecord | None) -> dict[str, Any] | None:
    if trial is None:
        return None
    return {"trial": trial.number, "state": trial.state, "value": trial.value, "params": dict(trial.params)}


def _outcome(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    return {
        "trial": outcome.trial,
        "test_accuracy": _interval(outcome.test_accuracy),
        "val_accuracies": list(outcome.val_accuracies),
        "gain": _interval(outcome.gain),
        "verdict": outcome.verdict,
        "scratch_trials": outcome.scratch_trials,
        "footprint": dataclasses.asdict(outcome.footprint) if outcome.footprint else None,
        "model_name": outcome.model_name,
        "model_version": outcome.model_version,
    }


def _interval(interval: Interval | None) -> dict[str, float | None] | None:
    if interval is None:
        return None
    values = {"estimate": interval.estimate, "low": interval.low, "high": interval.high}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
