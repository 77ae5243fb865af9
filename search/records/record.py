"""A search as plain data: what the ledger knows, for everyone who only reads it.

Tracking, the report, the live view, ``unfreeze status`` and ``trials.parquet`` are all functions of a
:class:`SearchRecord`; none of them asks Ray Tune or Optuna.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from search.records.metrics import Direction
from search.records.pareto import objective_losses, pareto_front
from trainables.epoch_metrics import EpochMetrics
from trainables.serving.footprint import Footprint

ParameterValue = int | float | bool | str
Parameters = Mapping[str, ParameterValue]
Cost = Mapping[str, ParameterValue]
State = Literal["waiting", "running", "complete", "pruned", "failed"]
Verdict = Literal["helps", "no difference", "negative transfer"]


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the ledger has it.

    ``value`` is the objective at the trial's best epoch (None before the first epoch, or if it never was a
    number). ``reason`` is a short word why a pruned or failed trial ended (``scheduler``, ``diverged``,
    ``time_budget``, ``out_of_memory``, ``crashed``, ``timed_out``); ``error`` a traceback, if there was one.
    ``retries`` counts how often it went on after it had died or hung by a fault of its own. ``batch_size`` is its
    own where the search's was too large for the memory; None otherwise. ``stages``
    maps a stage of work (:data:`trainables.cost_account.STAGES`) to seconds. ``cost`` says whether activations of
    the frozen part were kept, and why (the fields of :class:`trainables.activations.reuse_policy.ReuseDecision`),
    and what the trial
    found, computed and compiled (those of :class:`trainables.cost_account.CostCounts`); empty where it never
    said. ``node``
    is the name of the machine where it ran last. ``origin`` says where parameters came from that were neither the
    sampler's nor the user's: ``prior``, or the trial of an earlier search.
    ``objectives`` has the value of each of several objectives by name, at
    the trial's best epoch by the first of them; empty where the search has one.
    """

    number: int
    state: State
    method: str
    params: Parameters
    value: float | None = None
    epochs: tuple[EpochMetrics, ...] = ()
    reason: str | None = None
    error: str | None = None
    seed: int = 0
    started: datetime | None = None
    ended: datetime | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    cost: Cost = field(default_factory=dict)
    retries: int = 0
    batch_size: int | None = None
    node: str | None = None
    origin: str | None = None
    objectives: Mapping[str, float] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to this trial."""
        return self.state in ("complete", "pruned", "failed")

    @property
    def seconds(self) -> float:
        """Training time so far: the sum of its epochs, in seconds."""
        return sum(e.epoch_seconds for e in self.epochs)


@dataclass(frozen=True)
class TaskSummary:
    """The data of a search. ``counts`` maps train, validation, test to image counts."""

    name: str
    digest: str
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    image_size: tuple[int, int]
    source: str
    skipped: int = 0


@dataclass(frozen=True)
class BackboneSummary:
    """The backbone of a search. ``blocks`` are named from the input upwards."""

    name: str
    weights: str
    digest: str
    input_size: tuple[int, int]
    parameters: int
    blocks: tuple[str, ...]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class CalibrationBin:
    """The images to which a model gave probabilities from ``low`` to ``high`` (their mean: ``certain``).

    ``accuracy`` is the share of its answers to them that were right.
    """

    low: float
    high: float
    images: int
    certain: float
    accuracy: Interval


@dataclass(frozen=True)
class Calibration:
    """Whether a model's probabilities can be taken at their word (:mod:`search.records.stats.calibration`).

    ``error`` is the expected calibration error over ``bins``, ``by_chance`` what a perfectly calibrated model would
    show no more than in 95 of 100 tests like this one; ``excess`` is the mean probability minus accuracy: above 0
    the model is too sure. All are fractions. ``log_loss`` is in nats.
    """

    bins: tuple[CalibrationBin, ...]
    error: Interval
    by_chance: float
    excess: Interval
    log_loss: float


@dataclass(frozen=True)
class ErrorExample:
    """A test image that the winner saw: PNG bytes, truth, prediction and its probability."""

    png: bytes
    truth: str
    predicted: str
    probability: float

    @property
    def correct(self) -> bool:
        """Whether the winner was right."""
        return self.truth == self.predicted


@dataclass(frozen=True)
class Baseline:
    """The best of ``trials`` trials of a method that a search is compared with, on the same test images."""

    method: str
    params: Parameters
    trials: int
    test_accuracies: tuple[float, ...]


@dataclass(frozen=True)
class OldTask:
    """Accuracy on the test images of an old task: ``before`` with the backbone untouched, ``after`` in each of the
    winner's trainings, of which ``chosen`` is the registered one. ``lost`` is before minus after, the mean of the
    trainings, with its 95 % interval; None in records of earlier versions.
    """

    before: float
    after: tuple[float, ...]
    chosen: int
    lost: Interval | None = None

    @property
    def forgotten(self) -> float:
        """Accuracy that the registered model's backbone has lost; below 0 where it has gained."""
        return self.before - self.after[self.chosen]


@dataclass(frozen=True)
class Outcome:
    """What is known once the winner has been re-trained with live augmentation and measured on test data.

    ``val_accuracies`` has one entry per seed. ``test_accuracy`` is of the registered model (the seed with the
    best validation accuracy). ``gain`` is accuracy with transfer minus accuracy of the first of ``baselines`` on the
    same test images, both averaged over their seeds; None without a baseline. ``confusion[i][j]`` counts test
    images of class i predicted as class j. ``answers_file`` holds the answers behind all of that, beside the model's
    file (:mod:`search.records.predictions`); ``footprint`` is what the registered model costs to serve.
    ``calibration`` is the
    registered model's, None of winners that were measured before there was any. ``old_task`` is there where the search
    had one to keep.
    """

    trial: int
    params: Parameters
    seeds: tuple[int, ...]
    val_accuracies: tuple[float, ...]
    test_accuracy: Interval
    seed_test_accuracies: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    scratch_params: Parameters | None = None
    scratch_trials: int = 0
    scratch_test_accuracies: tuple[float, ...] = ()
    gain: Interval | None = None
    verdict: Verdict | None = None
    calibration: Calibration | None = None
    examples: tuple[ErrorExample, ...] = ()
    model_file: str = ""
    answers_file: str = ""
    footprint: Footprint | None = None
    model_name: str | None = None
    model_version: str | None = None
    seconds: float = 0.0
    baselines: tuple[Baseline, ...] = ()
    old_task: OldTask | None = None

    @property
    def main_baseline(self) -> Baseline | None:
        """The baseline that :attr:`gain` is about; one from scratch in records of earlier versions."""
        if self.baselines:
            return self.baselines[0]
        if self.gain is None and not self.scratch_test_accuracies:
            return None
        known = self.scratch_params or {}
        return Baseline("scratch", known, self.scratch_trials, self.scratch_test_accuracies)


@dataclass(frozen=True)
class SearchRecord:
    """A search, whole. ``config`` holds what was asked for, as JSON values by the names of SearchConfig; ``source`` is
    the dataset that it transfers from, ``teacher`` the backbone that it learns from, if there is one.
    """

    name: str
    metric: str
    direction: Direction
    task: TaskSummary
    backbone: BackboneSummary
    config: Mapping[str, object]
    trials: tuple[TrialRecord, ...]
    requested: int
    started: datetime | None = None
    elapsed: float = 0.0
    importances: Mapping[str, float] = field(default_factory=dict)
    importance_intervals: Mapping[str, Interval] = field(default_factory=dict)
    edges: tuple[str, ...] = ()
    outcome: Outcome | None = None
    storage: str = ""
    tracking_uri: str = ""
    backbones: Mapping[str, BackboneSummary] = field(default_factory=dict)
    """All backbones by name, where the search chooses among several; ``backbone`` is the first."""
    prior: Mapping[str, Any] | None = None
    """What was believed of the backbones before the first trial
    (:class:`search.ledger.sampling.backbone_prior.BackbonePrior`).
    """
    source: TaskSummary | None = None
    teacher: BackboneSummary | None = None
    warm_start: tuple[Mapping[str, Any], ...] | None = None
    """Configurations that were taken over from earlier searches
    (:class:`search.ledger.sampling.warm_start.TransferredConfig`).
    """
    stopped: str | None = None
    """Why it ended before ``requested`` trials, if it did: ``converged``, ``time_budget`` or ``failing_alike``."""
    objectives: tuple[str, ...] = ()
    """Names of several objectives, the first being ``metric``; empty where there is one."""
    alternatives: tuple[Outcome, ...] = ()
    """Of the other points of the front that were confirmed, in the order of ``metric``."""

    @cached_property
    def front(self) -> tuple[TrialRecord, ...]:
        """With several objectives, the complete trials that no other dominates, the best in the first one first."""
        return pareto_trials(self.trials, self.objectives)

    @cached_property
    def front_numbers(self) -> frozenset[int]:
        """Of the trials on the front."""
        return frozenset(trial.number for trial in self.front)

    @cached_property
    def best(self) -> TrialRecord | None:
        """The finished trial with the best objective; ties go to the lower loss, then the lower number.

        A complete trial goes before a pruned one of the same value. With several objectives it is the first of the
        front, unless no trial is complete.
        """
        if self.front:
            return self.front[0]
        ranked = [(place, t) for t in self.trials if (place := rank_key(t, self.direction)) is not None]
        return min(ranked, key=lambda pair: pair[0])[1] if ranked else None

    def backbone_of(self, params: Parameters) -> BackboneSummary:
        """The backbone of a trial with ``params``."""
        return self.backbones.get(str(params.get("backbone")), self.backbone)

    @property
    def leading_backbone(self) -> BackboneSummary:
        """That of the winner, or of the best trial so far; the first before there is one."""
        best = self.best
        params = self.outcome.params if self.outcome else best.params if best else {}
        return self.backbone_of(params)

    def count(self, state: State) -> int:
        """How many trials are in ``state``."""
        return sum(t.state == state for t in self.trials)

    def outcome_of(self, trial: int) -> Outcome | None:
        """What is known of a trial that was confirmed: the winner, or another point of the front."""
        known = (self.outcome, *self.alternatives)
        return next((outcome for outcome in known if outcome is not None and outcome.trial == trial), None)


def pareto_trials(trials: Iterable[TrialRecord], names: tuple[str, ...]) -> tuple[TrialRecord, ...]:
    """The complete trials that no other dominates in the objectives ``names``; none where there are no names."""
    complete = [t for t in trials if t.state == "complete"] if names else []
    placed = [(t, point) for t in complete if (point := objective_losses(t.objectives, names)) is not None]
    return tuple(placed[index][0] for index in pareto_front([point for _, point in placed]))


def rank_key(trial: TrialRecord, direction: Direction) -> tuple[float, bool, float, int] | None:
    """What to sort ended trials by, the best first; None for one that has no result."""
    if not trial.finished or trial.state == "failed" or trial.value is None:
        return None
    if math.isnan(trial.value):
        raise ValueError(f"trial {trial.number} has no value to rank")
    value = -trial.value if direction == "maximize" else trial.value
    loss = min((e.val_loss for e in trial.epochs), default=math.inf)
    return value, trial.state != "complete", loss, trial.number
