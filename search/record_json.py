"""A search as one JSON object, for programs."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from search.records.cost import search_cost
from search.records.record import Interval, Outcome, SearchRecord, State, TrialRecord
from search.records.results import front_json


def record_json(
    record: SearchRecord, report: Path | None = None, model_uri: str | None = None
) -> dict[str, Any]:
    """Name, counts, best trial, outcome and places of a search; every number is finite or null."""
    return {
        "search": record.name,
        "task": record.task.name,
        "backbone": record.leading_backbone.name,
        "backbones": list(record.backbones),
        **({"teacher": record.teacher.name} if record.teacher else {}),
        "method": record.config.get("method"),
        "metric": record.metric,
        "requested": record.requested,
        "trials": {state: record.count(state) for state in get_args(State)},
        "reasons": dict(Counter(t.reason for t in record.trials if t.reason)),
        "retries": {str(t.number): t.retries for t in record.trials if t.retries},
        "batch_sizes": {str(t.number): t.batch_size for t in record.trials if t.batch_size},
        "best": _best(record.best),
        **front_json(record),
        "edges": list(record.edges),
        "outcome": _outcome(record.outcome),
        **({"alternatives": [_outcome(o) for o in record.alternatives]} if record.objectives else {}),
        "stopped": record.stopped,
        "elapsed_seconds": round(record.elapsed, 3),
        "training_seconds": round(sum(t.seconds for t in record.trials if math.isfinite(t.seconds)), 3),
        "cost": search_cost(record).describe(),
        "model_uri": model_uri,
        "report": str(report) if report is not None else None,
        "storage": record.storage,
        "tracking_uri": record.tracking_uri,
    }


def finite_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values``, null in the place of what JSON has no number for."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


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
        "baselines": [dataclasses.asdict(baseline) for baseline in outcome.baselines],
        "calibration_error": _interval(outcome.calibration.error) if outcome.calibration else None,
        "footprint": dataclasses.asdict(outcome.footprint) if outcome.footprint else None,
        "model_name": outcome.model_name,
        "model_version": outcome.model_version,
    }


def _interval(interval: Interval | None) -> dict[str, float | None] | None:
    if interval is None:
        return None
    return finite_json({"estimate": interval.estimate, "low": interval.low, "high": interval.high})
