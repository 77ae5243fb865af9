"""Define the data of a search as plain, frozen data classes.

Tracking, the report, the live view, ``unfreeze status`` and ``trials.parquet`` are all functions of a
:class:`SearchRecord`; none of them reads Ray Tune or Optuna.
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
ProbeVerdict = Literal["enough", "helps", "no difference", "worse"]


@dataclass(frozen=True)
class TrialRecord:
    """One trial, as stored in the ledger.

    Attributes:
        number: number of the trial in its search, from 0.
        state: ``waiting``, ``running``, ``complete``, ``pruned`` or ``failed``.
        method: the transfer method.
        params: the values of the search parameters.
        value: the objective at the trial's best epoch; None before the first epoch, or if it never was a number.
        epochs: the metrics of every finished epoch.
        reason: a short word why a pruned or failed trial ended: ``scheduler``, ``diverged``, ``time_budget``,
            ``out_of_memory``, ``crashed`` or ``timed_out``.
        error: the traceback, if there is one.
        seed: the seed of the training run.
        started: when the trial started first.
        ended: when the trial ended.
        stages: seconds by stage of work (:data:`trainables.cost_account.STAGES`).
        cost: what the trial reused, computed and compiled, under the keys of
            :meth:`trainables.training.trial_cost.TrialCost.to_json`. A trial of an earlier version has fewer of them,
            or none.
        retries: how often the trial was resumed after it crashed or hung.
        batch_size: the trial's own batch size, if that of the search did not fit into memory; else None.
        node: name of the machine on which the trial ran last.
        origin: where the parameters came from, if from neither the sampler nor the user: ``prior``, or the trial of
            an earlier search.
        objectives: value of each objective by name, at the best epoch by the first objective; empty in a search with
            one objective.
        head_init: what the head starts from (:data:`trainables.methods.parameter_values.HEAD_INITS`), unless ``params``
            say so.
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
    head_init: str = "random"

    @property
    def finished(self) -> bool:
        """Whether the trial has ended for good."""
        return self.state in ("complete", "pruned", "failed")

    @property
    def seconds(self) -> float:
        """Training time so far: the sum of the trial's epochs, in seconds."""
        return sum(e.epoch_seconds for e in self.epochs)


@dataclass(frozen=True)
class TaskSummary:
    """The data of a search. ``counts`` maps ``train``, ``validation`` and ``test`` to numbers of images."""

    name: str
    digest: str
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    image_size: tuple[int, int]
    source: str
    skipped: int = 0


@dataclass(frozen=True)
class BackboneSummary:
    """The backbone of a search. ``blocks`` are listed from the input upwards."""

    name: str
    weights: str
    digest: str
    input_size: tuple[int, int]
    parameters: int
    blocks: tuple[str, ...]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class CalibrationBin:
    """The images for which the probability of the predicted class is between ``low`` and ``high``.

    Attributes:
        low: lower end of the bin.
        high: upper end of the bin.
        images: number of images in the bin.
        certain: mean probability of the predicted class.
        accuracy: share of correct predictions.
    """

    low: float
    high: float
    images: int
    certain: float
    accuracy: Interval


@dataclass(frozen=True)
class Calibration:
    """How well a model's probabilities agree with its accuracy (:mod:`search.records.stats.calibration`).

    Attributes:
        bins: the bins that hold images, by probability.
        error: the expected calibration error over the bins, as a fraction.
        by_chance: the 95 % quantile of the error that a perfectly calibrated model shows on as many images.
        excess: mean probability minus accuracy, as a fraction; above 0 the model is overconfident.
        log_loss: mean negative log-likelihood of the true classes, in nats.
    """

    bins: tuple[CalibrationBin, ...]
    error: Interval
    by_chance: float
    excess: Interval
    log_loss: float


@dataclass(frozen=True)
class ErrorExample:
    """A test image with the winner's prediction: PNG bytes, true class, predicted class and its probability."""

    png: bytes
    truth: str
    predicted: str
    probability: float

    @property
    def correct(self) -> bool:
        """Whether the prediction is correct."""
        return self.truth == self.predicted


@dataclass(frozen=True)
class Baseline:
    """The best of ``trials`` trials of a baseline method, measured on the same test images as the winner."""

    method: str
    params: Parameters
    trials: int
    test_accuracies: tuple[float, ...]


@dataclass(frozen=True)
class Finalist:
    """A configuration among which the winner was chosen, trained again with new seeds on the training images.

    Attributes:
        trial: number of its trial.
        method: its method.
        searched: value of the objective that the search saw. It is optimistic, because trials were ranked by it.
        values: value of the objective at the best epoch of each training run, by seed.
        accuracies: validation accuracy at the same epochs.
        mean: mean of ``values``, with its 95 % interval over validation images and seeds.
        epochs: best epoch of each training run.
    """

    trial: int
    method: str
    searched: float
    values: tuple[float, ...]
    accuracies: tuple[float, ...]
    mean: Interval
    epochs: tuple[int, ...]


@dataclass(frozen=True)
class Selection:
    """How the winner was chosen: by the mean over new seeds on the validation images.

    Attributes:
        metric: the objective.
        direction: whether it is maximised or minimised.
        chosen: number of the winning trial.
        finalists: the candidates, the best mean first.
        images: number of validation images.
        failed: numbers of the trials that were candidates, too, and diverged with a new seed.
        probe_preferred: whether the frozen probe won although another candidate has a better mean: the difference is
            at most one standard error.
        over_probe: what the best other candidate gains over the probe on the validation images, positive if it is
            better; None without a probe, without another candidate, or with a single image.
    """

    metric: str
    direction: Direction
    chosen: int
    finalists: tuple[Finalist, ...]
    images: int
    failed: tuple[int, ...] = ()
    probe_preferred: bool = False
    over_probe: Interval | None = None

    @property
    def winner(self) -> Finalist:
        """The chosen candidate."""
        return next(finalist for finalist in self.finalists if finalist.trial == self.chosen)

    def optimism(self, finalist: Finalist) -> float:
        """Return by how much the value that the search saw is better than the mean over new seeds."""
        better = 1 if self.direction == "maximize" else -1
        return better * (finalist.searched - finalist.mean.estimate)


@dataclass(frozen=True)
class OldTask:
    """Accuracy on the test images of an old task.

    Attributes:
        before: with the untouched backbone.
        after: after each of the winner's training runs.
        chosen: index of the training run whose model is registered.
        lost: ``before`` minus ``after``, averaged over the training runs, with its 95 % interval; None in records of
            earlier versions.
    """

    before: float
    after: tuple[float, ...]
    chosen: int
    lost: Interval | None = None

    @property
    def forgotten(self) -> float:
        """Accuracy that the registered model's backbone has lost; negative if it has gained."""
        return self.before - self.after[self.chosen]


@dataclass(frozen=True)
class Outcome:
    """The results of the winner, after it was trained again with live augmentation and measured on the test images.

    The headline everywhere is :attr:`headline_accuracy`, what the configuration is worth. The registered model is one
    of its training runs.

    Attributes:
        trial: number of the winning trial.
        params: its parameters.
        seeds: the seeds of the training runs.
        val_accuracies: validation accuracy of each seed: of the training run itself, or if validation images were
            trained on (``refit``), of the run without them.
        test_accuracy: test accuracy of the registered model alone, with its interval over test images.
        seed_test_accuracies: test accuracy of each training run.
        confusion: ``confusion[i][j]`` counts the test images of class i that are predicted as class j.
        scratch_params: parameters of the baseline from scratch, in records of earlier versions (:attr:`baselines`
            now).
        scratch_trials: number of its trials, likewise.
        scratch_test_accuracies: test accuracy of each of its training runs, likewise.
        gain: accuracy of the winner minus that of the first of ``baselines`` on the same test images, both averaged
            over seeds; None without a baseline.
        verdict: what the interval of the gain allows to conclude.
        calibration: calibration of the registered model; None if it was measured by a version without it.
        examples: some test images with their predictions.
        model_file: path of the Keras model.
        answers_file: path of the predictions (:mod:`search.records.predictions`), next to the model file.
        footprint: what it costs to serve the registered model.
        model_name: name of the registered model, if it was registered.
        model_version: its version.
        seconds: time to train and measure the winner.
        baselines: the baselines, the most important first.
        old_task: accuracy on an old task, if the search had one to remember.
        mean_test_accuracy: mean test accuracy of the training runs, with its interval over test images and seeds; None
            in records of earlier versions.
        registered: index of the training run whose model is registered; None in records of earlier versions. It is the
            first one after a refit, when there are no validation images left to choose by, and else the best one on
            the validation images.
        selection: how the winner was chosen among several configurations; None if it was the best trial.
        refit: whether the training runs learned from the validation images, too.
        refit_epochs: number of epochs of each of these runs.
        probe: the frozen probe, trained and measured in the same way; None without one.
        probe_gain: accuracy of the winner minus that of the probe on the same test images; None without a probe, and if
            the probe is the winner.
        probe_won: whether the frozen probe is the winner, so that unfreezing is not worth its cost.
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
    mean_test_accuracy: Interval | None = None
    registered: int | None = None
    selection: Selection | None = None
    refit: bool = False
    refit_epochs: int | None = None
    probe: Baseline | None = None
    probe_gain: Interval | None = None
    probe_won: bool = False

    @property
    def headline_accuracy(self) -> Interval:
        """The accuracy to show and to compare: the mean over seeds.

        In records of earlier versions, which had no interval of the mean, it is that of the registered model.
        """
        return self.mean_test_accuracy or self.test_accuracy

    @property
    def majority_accuracy(self) -> float:
        """Test accuracy of always predicting the most frequent class of the test images."""
        counts = [sum(row) for row in self.confusion]
        return max(counts, default=0) / max(1, sum(counts))

    @property
    def main_baseline(self) -> Baseline | None:
        """The baseline to which :attr:`gain` refers, also in records of versions that stored only one from scratch."""
        if self.baselines:
            return self.baselines[0]
        if self.gain is None and not self.scratch_test_accuracies:
            return None
        known = self.scratch_params or {}
        return Baseline("scratch", known, self.scratch_trials, self.scratch_test_accuracies)


@dataclass(frozen=True)
class SearchRecord:
    """A whole search.

    Attributes:
        name: name of the search.
        metric: the objective; with several, the first one.
        direction: whether ``metric`` is maximised or minimised.
        task: the target data.
        backbone: the backbone; if the search chooses among several, the first one.
        config: the settings, as JSON values by the field names of SearchConfig.
        trials: all trials.
        requested: the number of trials that the search should run.
        started: when the search started first.
        elapsed: seconds that the search has run, over all runs of the command.
        importances: share of each parameter in the differences between trials.
        importance_intervals: their 95 % intervals.
        edges: parameters whose best value is at the edge of its range.
        outcome: the results of the winner, once it has been measured.
        storage: the folder of the search.
        tracking_uri: the MLflow store.
        backbones: all backbones by name, if the search chooses among several.
        prior: the prior on the backbones before the first trial
            (:class:`search.ledger.sampling.backbone_prior.BackbonePrior`).
        source: the dataset from which knowledge is transferred, if there is one.
        teacher: the backbone that is distilled, if there is one.
        warm_start: configurations taken over from earlier searches (:mod:`search.ledger.sampling.warm_start`).
        stopped: why the search ended before ``requested`` trials: ``converged``, ``time_budget`` or
            ``failing_alike``.
        objectives: names of the objectives, the first being ``metric``; empty in a search with one objective.
        alternatives: the results of other points of the Pareto front that were trained again, ordered by ``metric``.
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
    prior: Mapping[str, Any] | None = None
    source: TaskSummary | None = None
    teacher: BackboneSummary | None = None
    warm_start: tuple[Mapping[str, Any], ...] | None = None
    stopped: str | None = None
    objectives: tuple[str, ...] = ()
    alternatives: tuple[Outcome, ...] = ()

    def planned_epochs(self, method: str) -> int | None:
        """Return the epochs of a trial of ``method`` that is not stopped; None if the settings do not have them."""
        by_method = self.config.get("epochs_by_method")
        own = by_method.get(method) if isinstance(by_method, Mapping) else None
        epochs = own or self.config.get("epochs")
        return epochs if isinstance(epochs, int) and epochs > 0 else None

    @cached_property
    def front(self) -> tuple[TrialRecord, ...]:
        """The complete trials on the Pareto front, the best in the first objective first; empty with one objective."""
        return pareto_trials(self.trials, self.objectives)

    @cached_property
    def front_numbers(self) -> frozenset[int]:
        """The numbers of the trials on the Pareto front."""
        return frozenset(trial.number for trial in self.front)

    @cached_property
    def winner(self) -> TrialRecord | None:
        """The trial that was chosen, trained again and tested; before that, the best one so far."""
        if self.outcome is None:
            return self.best
        return next((t for t in self.trials if t.number == self.outcome.trial), None)

    @cached_property
    def best(self) -> TrialRecord | None:
        """The finished trial with the best objective; ties go to the lower loss, then to the lower number.

        A complete trial ranks before a pruned trial of the same value. With several objectives this is the first
        trial of the front, unless no trial is complete.
        """
        if self.front:
            return self.front[0]
        return self.ranked[0] if self.ranked else None

    @cached_property
    def ranked(self) -> tuple[TrialRecord, ...]:
        """The ended trials with a value of the (first) objective, the best first (:func:`rank_key`)."""
        # The key ends with the number of the trial, so that equal trials always rank in the same order.
        places = [(place, t) for t in self.trials if (place := rank_key(t, self.direction)) is not None]
        return tuple(trial for _, trial in sorted(places, key=lambda pair: pair[0]))

    def backbone_of(self, params: Parameters) -> BackboneSummary:
        """Return the backbone of a trial with ``params``."""
        return self.backbones.get(str(params.get("backbone")), self.backbone)

    @property
    def leading_backbone(self) -> BackboneSummary:
        """The backbone of the winner, else of the best trial so far, else the first one."""
        best = self.winner
        params = self.outcome.params if self.outcome else best.params if best else {}
        return self.backbone_of(params)

    def count(self, state: State) -> int:
        """Count the trials in ``state``."""
        return sum(t.state == state for t in self.trials)

    def outcome_of(self, trial: int) -> Outcome | None:
        """Return the results of a trial that was trained again (the winner or a point of the front), or None."""
        known = (self.outcome, *self.alternatives)
        return next((outcome for outcome in known if outcome is not None and outcome.trial == trial), None)


def pareto_trials(trials: Iterable[TrialRecord], names: tuple[str, ...]) -> tuple[TrialRecord, ...]:
    """Return the complete trials on the Pareto front of the objectives ``names``; none if there are no names."""
    complete = [t for t in trials if t.state == "complete"] if names else []
    placed = [(t, point) for t in complete if (point := objective_losses(t.objectives, names)) is not None]
    return tuple(placed[index][0] for index in pareto_front([point for _, point in placed]))


def rank_key(trial: TrialRecord, direction: Direction) -> tuple[float, bool, float, int] | None:
    """Return the key by which ended trials are sorted, the best first; None for a trial without a result."""
    if not trial.finished or trial.state == "failed" or trial.value is None:
        return None
    # NaN would compare as neither better nor worse, so that the order would depend on the sort algorithm.
    if math.isnan(trial.value):
        raise ValueError(f"trial {trial.number} has no value to rank")
    value = -trial.value if direction == "maximize" else trial.value
    loss = min((e.val_loss for e in trial.epochs), default=math.inf)
    return value, trial.state != "complete", loss, trial.number
