"""Compute what MLflow should contain of a search: a pure function of its record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from search.ledger.sampling.backbone_prior import evaluate_prior
from search.ledger.sampling.warm_start_prior import warm_start_summary
from search.records.cost import activations_phrase, cost_phrases, search_cost
from search.records.formatting import without_secrets
from search.records.record import Outcome, SearchRecord, State, TrialRecord
from search.tracking.run_descriptions import search_note, trial_name, trial_note
from search.tracking.run_metrics import MetricPoint, best_curve, epoch_points, final_points, milliseconds
from search.tracking.tags import accuracy_tags, old_task_tags

RunStatus = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]

RUN_STATUSES: Mapping[State, RunStatus] = {
    "waiting": "SCHEDULED",
    "running": "RUNNING",
    "complete": "FINISHED",
    # MLflow has no status for a trial that was stopped early. KILLED separates it from failures.
    "pruned": "KILLED",
    "failed": "FAILED",
}
OLD_TASK_METRICS = ("old_accuracy_before", "old_accuracy")
"""Measurements of an old task that a trial may report among its costs."""
PARENT_RUN_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"

_BUDGET = frozenset(
    {
        "trials",
        "time_budget",
        "patience",
        "enqueue",
        "prior",
        "warm_start",
        "finalists",
        "refit",
        "confirm_seeds",
        "confirm_points",
        "baseline_trials",
    }
)
_MACHINES = frozenset(
    {"max_concurrent", "cpus_per_trial", "gpus_per_trial", "max_retries", "trial_timeout", "address"}
)
_REUSE = frozenset({"reuse", "cache", "cache_budget"})
_PLACES = frozenset({"name", "storage", "ledger", "tracking_uri", "model_name", "register_model"})
_KEPT = frozenset({"keep_best", "checkpoint_budget"})
_CHANGEABLE = _BUDGET | _MACHINES | _PLACES | _REUSE | _KEPT
"""Settings that may change from one run of the command to the next. They are tags, because MLflow's params cannot
change.
"""

_MAX_PARAM_LENGTH = 500
_MAX_TAG_LENGTH = 5000


@dataclass(frozen=True)
class RunContent:
    """Everything that MLflow should contain of one run. Times are in milliseconds since 1970."""

    name: str
    status: RunStatus
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: tuple[MetricPoint, ...]
    start: int
    end: int | None = None

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.status in ("FINISHED", "FAILED", "KILLED")


def search_start(record: SearchRecord) -> str:
    """Return the first start of the search, which distinguishes it from an earlier search of the same name."""
    return record.started.isoformat() if record.started else ""


def search_content(record: SearchRecord) -> RunContent:
    """Return the parent run, as long as the search runs."""
    facts = {"data_digest": record.task.digest, "backbone_digest": _digests(record)}
    facts |= {"source_digest": record.source.digest} if record.source else {}
    facts |= {"teacher_digest": record.teacher.digest} if record.teacher else {}
    # MLflow refuses to change a param, so that a setting that may change has to be a tag.
    kept = {k: v for k, v in record.config.items() if k not in _CHANGEABLE and v is not None}
    changing = {k: v for k, v in record.config.items() if k in _CHANGEABLE and v is not None}
    tags = {
        "unfreeze.search": record.name,
        "unfreeze.kind": "search",
        "unfreeze.state": "running",
        "unfreeze.started": search_start(record),
        **{f"unfreeze.{name}": _tag(_text(value)) for name, value in {**facts, **changing}.items()},
        **_prior_tags(record),
        **_warm_tags(record),
        **_outcome_tags(record.outcome),
        **_front_tags(record),
        **_cost_tags(record),
        NOTE_TAG: search_note(record),
    }
    params = {name: _text(value)[:_MAX_PARAM_LENGTH] for name, value in {**kept, **facts}.items()}
    return RunContent(record.name, "RUNNING", tags, params, best_curve(record), milliseconds(record.started))


def trial_content(record: SearchRecord, trial: TrialRecord, parent: str) -> RunContent:
    """Return the child run of ``trial``; ``parent`` is the id of the search's run."""
    outcome = record.outcome_of(trial.number)
    tags = {
        "unfreeze.search": record.name,
        PARENT_RUN_TAG: parent,
        "unfreeze.kind": "trial",
        "unfreeze.trial": str(trial.number),
        "unfreeze.state": trial.state,
        "unfreeze.method": trial.method,
        "unfreeze.seed": str(trial.seed),
        NOTE_TAG: trial_note(trial, record, outcome),
    }
    if trial.reason:
        tags["unfreeze.reason"] = trial.reason
    if trial.error:
        tags["unfreeze.error"] = _tag(without_secrets(trial.error))
    for name in OLD_TASK_METRICS:
        if name in trial.cost:
            tags[f"unfreeze.{name}"] = f"{float(trial.cost[name]):.6f}"
    if trial.origin:
        tags["unfreeze.origin"] = trial.origin
    if trial.retries:
        tags["unfreeze.retries"] = str(trial.retries)
    if trial.batch_size:
        tags["unfreeze.batch_size"] = str(trial.batch_size)
    if trial.cost:
        tags["unfreeze.activations"] = activations_phrase(trial)
    if outcome:
        tags["unfreeze.winner" if outcome is record.outcome else "unfreeze.confirmed"] = "true"
    if record.objectives and trial.finished:
        tags["unfreeze.front"] = str(trial.number in record.front_numbers).lower()
    return RunContent(
        name=trial_name(record.name, trial, record.backbone_of(trial.params)),
        status=RUN_STATUSES[trial.state],
        tags=tags,
        params={name: str(value)[:_MAX_PARAM_LENGTH] for name, value in trial.params.items()},
        points=epoch_points(trial) + final_points(trial, record.metric, outcome),
        start=milliseconds(trial.started or record.started),
        end=milliseconds(trial.ended) if trial.finished else None,
    )


def _outcome_tags(outcome: Outcome | None) -> dict[str, str]:
    if outcome is None:
        return {}
    tags = {"winner": str(outcome.trial), **accuracy_tags(outcome)}
    if outcome.model_name and outcome.model_version:
        tags["model"] = f"models:/{outcome.model_name}/{outcome.model_version}"
    return {f"unfreeze.{name}": value for name, value in tags.items()} | old_task_tags(outcome)


def _prior_tags(record: SearchRecord) -> dict[str, str]:
    """Return the prior on the backbones, and once the winner is known what it was worth."""
    if record.prior is None:
        return {}
    tags = {"unfreeze.prior_probabilities": json.dumps(record.prior["probabilities"], ensure_ascii=False)}
    worth = evaluate_prior(record) if record.outcome else None
    return tags | ({"unfreeze.prior_worth": _tag(str(worth))} if worth else {})


def _warm_tags(record: SearchRecord) -> dict[str, str]:
    """Return which trials of earlier searches were taken over, and once the winner is known what they were worth."""
    if record.warm_start is None:
        return {}
    taken = [f"{transferred['search']} #{transferred['trial']}" for transferred in record.warm_start]
    worth = warm_start_summary(record) if record.outcome else None
    tags = {"unfreeze.warm_start_from": _tag(", ".join(taken))}
    return tags | ({"unfreeze.warm_start_worth": worth} if worth else {})


def _front_tags(record: SearchRecord) -> dict[str, str]:
    """Return which trials are on the Pareto front, the best in the first objective first."""
    if not record.objectives:
        return {}
    return {"unfreeze.front": ", ".join(str(trial.number) for trial in record.front) or "none yet"}


def _cost_tags(record: SearchRecord) -> dict[str, str]:
    """Return the totals of the costs, once all trials have ended.

    A tag that changed with each trial would cost a request each time.
    """
    if record.outcome is None:
        return {}
    phrases = cost_phrases(search_cost(record))
    return {"unfreeze.cost": "; ".join(phrases)} if phrases else {}


def _digests(record: SearchRecord) -> str:
    """Return the digest of the backbone; with several backbones, all digests by name."""
    if not record.backbones:
        return record.backbone.digest
    return json.dumps({name: b.digest for name, b in record.backbones.items()}, ensure_ascii=False)


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return without_secrets(text)


def _tag(text: str) -> str:
    """Return the end of a text that is too long for a tag: the end of a traceback is its most informative part."""
    return text if len(text) <= _MAX_TAG_LENGTH else "…" + text[1 - _MAX_TAG_LENGTH :]
