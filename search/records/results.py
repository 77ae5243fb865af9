"""Write the results of a search as files and JSON: ``trials.parquet``, ``best.json`` and ``--json`` output."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from search.records.atomic_file import write_bytes, write_text
from search.records.cost import search_cost
from search.records.metrics import EPOCH_METRICS, METRICS, objective_column
from search.records.record import (
    Baseline,
    Calibration,
    CalibrationBin,
    ErrorExample,
    Finalist,
    Interval,
    OldTask,
    Outcome,
    SearchRecord,
    Selection,
    State,
    TrialRecord,
    pareto_trials,
)
from trainables.serving.footprint import Footprint, Latency

BEST_JSON_FORMAT = 1


def trials_table(trials: tuple[TrialRecord, ...], objectives: tuple[str, ...] = ()) -> pa.Table:
    """Return a table with one row per trial: number, state, method, parameters, objective, learning curves and cost.

    With several ``objectives`` there is a column for each (:func:`search.records.metrics.objective_column`), and the
    column ``front``.
    """
    names = sorted({name for t in trials for name in t.params})
    columns: dict[str, list[Any]] = {
        "number": [t.number for t in trials],
        "state": [t.state for t in trials],
        "reason": [t.reason for t in trials],
        "method": [t.method for t in trials],
        "seed": [t.seed for t in trials],
        "retries": [t.retries for t in trials],
        "batch_size": [t.batch_size for t in trials],
        **{name: [t.params.get(name) for t in trials] for name in names},
        "value": [t.value for t in trials],
        **_objectives(trials, objectives),
        "epochs": [len(t.epochs) for t in trials],
        "seconds": [t.seconds for t in trials],
        **{name: [[e.metric(name) for e in t.epochs] for t in trials] for name in EPOCH_METRICS},
        "stages": [json.dumps(dict(t.stages)) for t in trials],
        "cost": [json.dumps(dict(t.cost)) for t in trials],
        "started": [t.started for t in trials],
        "ended": [t.ended for t in trials],
        "error": [t.error for t in trials],
    }
    text, curve = pa.string(), pa.list_(pa.float64())
    types = {
        **dict.fromkeys(("state", "reason", "method", "stages", "cost", "error"), text),
        **dict.fromkeys(("number", "seed", "retries", "batch_size", "epochs"), pa.int64()),
        **dict.fromkeys(("value", "seconds", *map(objective_column, objectives)), pa.float64()),
        **dict.fromkeys(EPOCH_METRICS, curve),
        **dict.fromkeys(("started", "ended"), pa.timestamp("us")),
    }
    # Parquet readers disagree on time zones (pandas, Spark, DuckDB): store naive UTC.
    naive = {k: [v.replace(tzinfo=None) if v else None for v in columns[k]] for k in ("started", "ended")}
    columns |= naive
    return pa.table({k: pa.array(v, types.get(k)) for k, v in columns.items()})


def _objectives(trials: tuple[TrialRecord, ...], names: tuple[str, ...]) -> dict[str, list[Any]]:
    if not names:
        return {}
    values = {objective_column(name): [t.objectives.get(name) for t in trials] for name in names}
    best = {t.number for t in pareto_trials(trials, names)}
    return {**values, "front": [t.number in best for t in trials]}


def write_results(record: SearchRecord, directory: Path) -> None:
    """Write ``trials.parquet`` and ``best.json`` to ``directory``."""
    buffer = io.BytesIO()
    pq.write_table(trials_table(record.trials, record.objectives), buffer)
    write_bytes(directory / "trials.parquet", buffer.getvalue())
    best = record.winner
    if best is not None:
        write_text(
            directory / "best.json", json.dumps(best_json(record, best), indent=2, ensure_ascii=False) + "\n"
        )


def best_json(record: SearchRecord, best: TrialRecord) -> dict[str, Any]:
    """Return the winner, or the best trial so far, and its outcome once it is measured, as JSON values."""
    return {
        "format": BEST_JSON_FORMAT,
        "search": record.name,
        "trial": best.number,
        "method": best.method,
        "params": dict(best.params),
        record.metric: best.value,
        "trials": len(record.trials),
        "data_digest": record.task.digest,
        "backbone_digest": record.leading_backbone.digest,
        **({"teacher_digest": record.teacher.digest} if record.teacher else {}),
        "stages": dict(best.stages),
        "cost": dict(best.cost),
        "search_cost": search_cost(record).describe(),
        **front_json(record),
        "outcome": outcome_to_json(record.outcome) if record.outcome else None,
        **({"alternatives": [outcome_to_json(o) for o in record.alternatives]} if record.objectives else {}),
    }


def front_json(record: SearchRecord) -> dict[str, Any]:
    """Return the objectives with their directions and the points of the front as JSON values; empty with one objective.

    Points are ordered by the first objective, the best first.
    """
    if not record.objectives:
        return {}
    return {
        "objectives": {name: METRICS[name].direction for name in record.objectives},
        "front": [_point_json(record, trial) for trial in record.front],
    }


def _point_json(record: SearchRecord, trial: TrialRecord) -> dict[str, Any]:
    outcome = record.outcome_of(trial.number)
    return {
        "trial": trial.number,
        "values": dict(trial.objectives),
        "params": dict(trial.params),
        "model_version": outcome.model_version if outcome else None,
    }


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """Return JSON values that :func:`outcome_from_json` reads."""
    values = dataclasses.asdict(outcome)
    # JSON has no bytes.
    values["examples"] = [
        {**dataclasses.asdict(e), "png": base64.b64encode(e.png).decode()} for e in outcome.examples
    ]
    return values


def outcome_from_json(values: Mapping[str, Any]) -> Outcome:
    """Read an outcome that was stored in the ledger."""
    # Keys that earlier versions did not write are read with .get().
    kept = dict(values)
    for name in ("seeds", "val_accuracies", "seed_test_accuracies", "scratch_test_accuracies"):
        kept[name] = tuple(kept[name])
    kept["confusion"] = tuple(map(tuple, kept["confusion"]))
    kept["test_accuracy"] = Interval(**kept["test_accuracy"])
    kept["baselines"] = tuple(map(_baseline, kept.get("baselines", ())))
    for name in ("gain", "mean_test_accuracy", "probe_gain"):
        kept[name] = Interval(**kept[name]) if kept.get(name) else None
    kept["probe"] = _baseline(kept["probe"]) if kept.get("probe") else None
    kept["selection"] = _selection(kept["selection"]) if kept.get("selection") else None
    kept["footprint"] = _footprint(kept.get("footprint"))
    kept["calibration"] = _calibration(kept.get("calibration"))
    old = kept.get("old_task")
    kept["old_task"] = _old_task(old) if old else None
    kept["examples"] = tuple(
        ErrorExample(**{**e, "png": base64.b64decode(e["png"])}) for e in kept["examples"]
    )
    return Outcome(**kept)


def _baseline(values: Mapping[str, Any]) -> Baseline:
    return Baseline(**{**values, "test_accuracies": tuple(values["test_accuracies"])})


def _selection(values: Mapping[str, Any]) -> Selection:
    over = values["over_probe"]
    return Selection(
        **{
            **values,
            "finalists": tuple(map(_finalist, values["finalists"])),
            "failed": tuple(values["failed"]),
            "over_probe": Interval(**over) if over else None,
        }
    )


def _finalist(values: Mapping[str, Any]) -> Finalist:
    lists = {name: tuple(values[name]) for name in ("values", "accuracies", "epochs")}
    return Finalist(**{**values, **lists, "mean": Interval(**values["mean"])})


def _old_task(values: Mapping[str, Any]) -> OldTask:
    lost = values.get("lost")  # missing in records of earlier versions
    return OldTask(**{**values, "after": tuple(values["after"]), "lost": Interval(**lost) if lost else None})


def _calibration(values: Mapping[str, Any] | None) -> Calibration | None:
    if values is None:  # measured by an earlier version
        return None
    bins = tuple(CalibrationBin(**{**b, "accuracy": Interval(**b["accuracy"])}) for b in values["bins"])
    intervals = {name: Interval(**values[name]) for name in ("error", "excess")}
    return Calibration(**{**values, "bins": bins, **intervals})


def _footprint(values: Mapping[str, Any] | None) -> Footprint | None:
    if values is None:  # measured by an earlier version
        return None
    times = {name: Latency(**values[name]) for name in ("latency", "batch_latency")}
    return Footprint(**{**values, **times})


def record_json(
    record: SearchRecord, report: Path | None = None, model_uri: str | None = None
) -> dict[str, Any]:
    """Return a search as JSON values: name, counts, best trial, outcome and locations.

    Every number is finite or null.
    """
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
        "best": _best(record.winner),
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
    """Return ``values`` with None in place of NaN and infinity, which JSON cannot represent."""
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
        "test_accuracy": _interval(outcome.headline_accuracy),
        "registered_test_accuracy": _interval(outcome.test_accuracy),
        "majority_accuracy": outcome.majority_accuracy,
        "val_accuracies": list(outcome.val_accuracies),
        "gain": _interval(outcome.gain),
        "verdict": outcome.verdict,
        "probe": dataclasses.asdict(outcome.probe) if outcome.probe else None,
        "probe_gain": _interval(outcome.probe_gain),
        "probe_is_enough": outcome.probe_won,
        "selection": dataclasses.asdict(outcome.selection) if outcome.selection else None,
        "refit": outcome.refit,
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
