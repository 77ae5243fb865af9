"""Chooses the winner among the best trials by training them again with seeds that no trial had.

Trials were ranked by one value each, so the best of them was partly lucky, the more so the fewer validation images
there are. A few finalists are therefore trained again on the training images with new seeds, and judged by their mean
over images and seeds. The frozen probe is always among them; as the simplest model it wins unless another one is better
by more than one standard error of their paired difference (the one-standard-error rule: Breiman et al. 1984,
*Classification and Regression Trees*, section 3.4.3).

These trainings also say after how many epochs a configuration is best, which a refit on all labels needs
(:mod:`search.study.winner.confirmation`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.config.search_config import SearchConfig
from search.execution.engines.jobs import ValidateConfig, ValidationResult
from search.execution.engines.messages import WorkbenchPaths
from search.execution.engines.session import Session
from search.execution.stop_request import StopRequest
from search.records.atomic_file import write_text
from search.records.metrics import Direction
from search.records.pareto import diverse_subset, objective_losses
from search.records.predictions import Bits, pack_bits, pack_floats, unpack_bits, unpack_floats
from search.records.record import (
    Finalist,
    Outcome,
    Parameters,
    SearchRecord,
    Selection,
    TrialRecord,
)
from search.records.stats.intervals import mean_accuracy, mean_interval, paired_difference
from search.study.winner.confirmation import (
    ConfirmationCandidate,
    confirmation_seeds,
    dispatch_missing,
    run_file,
    training_config,
)
from search.views.view import View
from trainables.methods.methods import PROBE

SELECTION_METRICS = ("val_accuracy", "val_loss")
"""Objectives by which finalists are compared: those that have a value for each validation image."""


@dataclass(frozen=True)
class SelectionPlan:
    """What is trained again once all trials have ended.

    Attributes:
        ranked: trials by rank, the best first: those that may win if better ones fail.
        finalists: among which the winner is chosen; with several objectives the points of the front, all of which are
            confirmed.
        validated: whether the finalists are trained with new seeds before one is chosen.
        refit: whether the winner is trained on the validation images, too, before it is tested.
    """

    ranked: tuple[TrialRecord, ...]
    finalists: tuple[TrialRecord, ...]
    validated: bool = False
    refit: bool = False

    def is_done(self, outcome: Outcome | None, alternatives: Sequence[Outcome]) -> bool:
        """Return whether ``outcome`` and ``alternatives`` are the results of this plan."""
        if outcome is None or not self.finalists:
            return not self.finalists
        wanted = [trial.number for trial in self.finalists]
        if alternatives or not self.validated:
            return [outcome.trial, *(other.trial for other in alternatives)] == wanted
        if outcome.selection is None:
            # An earlier version confirmed the best trial. A search that is complete stays as it is.
            return outcome.mean_test_accuracy is None and outcome.trial == wanted[0]
        known = {finalist.trial for finalist in outcome.selection.finalists} | {*outcome.selection.failed}
        return outcome.refit == self.refit and known.issuperset(wanted)


def plan_selection(record: SearchRecord, config: SearchConfig) -> SelectionPlan:
    """Return what is to be trained again.

    With several objectives, these are points of the front (:func:`front_points`), as the search found them. Without
    labels of validation images, or with an objective that images have no value of, it is the best trial.
    """
    if record.front:
        return SelectionPlan((), front_points(record, config.confirm_points))
    ranked = record.ranked
    if config.unlabelled_target or record.metric not in SELECTION_METRICS:
        return SelectionPlan(ranked, ranked[:1])
    best = ranked[: config.finalists]
    probes = tuple(trial for trial in ranked[config.finalists :] if trial.method == PROBE)
    return SelectionPlan(
        ranked, (*best, *probes), validated=config.refit or len(best) + len(probes) > 1, refit=config.refit
    )


def front_points(record: SearchRecord, max_points: int) -> tuple[TrialRecord, ...]:
    """Return at most ``max_points`` trials of the front, the best in the first objective first."""
    losses = [objective_losses(trial.objectives, record.objectives) or () for trial in record.front]
    return tuple(record.front[index] for index in diverse_subset(losses, max_points))


@dataclass(frozen=True, eq=False)
class ValidationRun:
    """One training of a configuration with a new seed.

    Attributes:
        epoch: the best one; 0 if the loss diverged.
        correct: (N,) whether each validation image is classified correctly at that epoch.
        losses: (N,) its cross-entropy.
    """

    epoch: int
    correct: Bits
    losses: NDArray[np.float32]


@dataclass(frozen=True)
class ValidatedTrial:
    """A configuration with its trainings, one for each seed."""

    trial: TrialRecord
    runs: tuple[ValidationRun, ...]

    @property
    def diverged(self) -> bool:
        """Whether the loss diverged with a seed: such a configuration cannot be relied on."""
        return any(run.epoch == 0 for run in self.runs)

    @property
    def best_epochs(self) -> int:
        """The mean best epoch, for which it is trained on all labels."""
        return max(1, round(sum(run.epoch for run in self.runs) / len(self.runs)))

    @property
    def correct(self) -> Bits:
        """(seeds, N) whether each validation image is classified correctly."""
        return np.stack([run.correct for run in self.runs])

    @property
    def losses(self) -> NDArray[np.float64]:
        """(seeds, N) cross-entropy of each validation image."""
        return np.stack([run.losses for run in self.runs]).astype(np.float64)


@dataclass(frozen=True)
class Contest:
    """Trials of which at least one has to come through its trainings with new seeds.

    Attributes:
        first: the trials to begin with.
        ranked: trials by rank; they follow one by one if all before them have diverged.
        epochs_of: number of epochs of a trial.
    """

    first: tuple[TrialRecord, ...]
    ranked: tuple[TrialRecord, ...]
    epochs_of: Callable[[TrialRecord], int]

    def turn(self, known: Sequence[ValidatedTrial]) -> list[ConfirmationCandidate]:
        """Return what is to be trained after ``known``; nothing if one of them has come through."""
        if not all(validated.diverged for validated in known):
            return []
        tried = {validated.trial.number for validated in known}
        trials = [t for t in self.ranked if t.number not in tried][:1] if known else self.first
        return [ConfirmationCandidate(trial, self.epochs_of(trial)) for trial in trials]


def hold_contests(
    contests: Sequence[Contest],
    validate: Callable[[Sequence[ConfirmationCandidate]], Sequence[ValidatedTrial]],
) -> list[list[ValidatedTrial]]:
    """Train the trials of all contests, and further ones where all have diverged.

    Args:
        validate: trains configurations (:func:`validate_trials`). The trials of all contests are trained at once, so
            that no engine is idle.

    Returns:
        The trained trials of each contest, also those that diverged.
    """
    found: list[list[ValidatedTrial]] = [[] for _ in contests]
    while turns := [(i, c) for i, contest in enumerate(contests) for c in contest.turn(found[i])]:
        for (i, _), validated in zip(turns, validate([c for _, c in turns]), strict=True):
            found[i].append(validated)
    return found


def validate_trials(
    candidates: Sequence[ConfirmationCandidate],
    config: SearchConfig,
    session: Session,
    paths_of: Callable[[Parameters], WorkbenchPaths],
    directory: Path,
    view: View,
    stop_request: StopRequest,
) -> list[ValidatedTrial]:
    """Train each candidate with each of the confirmation seeds on the training images.

    The trainings see the augmentation that trials share, so that activations are reused. Each leaves a JSON file in
    ``directory``, so that trainings which an interrupted run of the command has finished are not repeated.

    Args:
        paths_of: backbone and data for the parameters of a trial.
        directory: folder of the files.

    Returns:
        For each candidate its trainings by seed. Some are missing if ``stop_request`` asked to end at once.
    """
    seeds = confirmation_seeds(config)
    planned = [(candidate, seed) for candidate in candidates for seed in seeds]
    jobs = {
        index: ValidateConfig(training_config(candidate, seed, config), paths_of(candidate.trial.params))
        for index, (candidate, seed) in enumerate(planned)
        if read_validation(directory, candidate.trial, seed) is None
    }

    def save(index: int, result: ValidationResult | None) -> None:
        candidate, seed = planned[index]
        _save(run_file(directory, candidate.trial, seed, _SUFFIX), candidate.trial, result)

    dispatch_missing(jobs, save, len(planned), "finalists", session, view, stop_request)
    done = [[read_validation(directory, c.trial, seed) for seed in seeds] for c in candidates]
    return [
        ValidatedTrial(candidate.trial, tuple(run for run in runs if run is not None))
        for candidate, runs in zip(candidates, done, strict=True)
    ]


def read_validation(directory: Path, trial: TrialRecord, seed: int) -> ValidationRun | None:
    """Return the finished training of ``trial`` with ``seed``; None if it is missing or damaged."""
    try:
        facts = json.loads(run_file(directory, trial, seed, _SUFFIX).read_text())
        run = ValidationRun(
            int(facts["epoch"]), unpack_bits(facts["correct"]), unpack_floats(facts["losses"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return run if len(run.correct) == len(run.losses) else None


def choose_winner(
    candidates: Sequence[ValidatedTrial], metric: str, direction: Direction
) -> Selection | None:
    """Choose the candidate with the best mean over seeds, or the probe if it is within one standard error of it.

    Args:
        candidates: by the rank of their trials, trained with the same seeds.
        metric: one of :data:`SELECTION_METRICS`.

    Returns:
        None if all candidates diverged.
    """
    remaining = [c for c in candidates if not c.diverged]
    if not remaining:
        return None
    by_rank = {c.trial.number: place for place, c in enumerate(remaining)}

    def place(candidate: ValidatedTrial) -> tuple[float, float, bool, int]:
        """Ties go to the lower loss, then to the probe, which is simpler, then to the better trial."""
        scores, is_other = _scores(candidate, metric), candidate.trial.method != PROBE
        # Rounded, so that means of equal images do not differ by the order of their addition.
        mean, loss = round(float(scores.mean()), 9), round(float(candidate.losses.mean()), 9)
        return -mean, loss, is_other, by_rank[candidate.trial.number]

    order = sorted(remaining, key=place)
    winner, over_probe = order[0], None
    probe = next((c for c in order if c.trial.method == PROBE), None)
    best_other = next((c for c in order if c.trial.method != PROBE), None)
    images = winner.correct.shape[1]
    if probe is not None and best_other is not None:
        if images < 2:
            winner = probe  # a single image cannot show that another model is better
        else:
            gain = paired_difference(_scores(best_other, metric), _scores(probe, metric))
            over_probe = gain.interval
            if gain.estimate <= gain.standard_error:
                winner = probe
    return Selection(
        metric=metric,
        direction=direction,
        chosen=winner.trial.number,
        finalists=tuple(_finalist(candidate, metric) for candidate in order),
        images=images,
        failed=tuple(c.trial.number for c in candidates if c.diverged),
        probe_preferred=winner is not order[0],
        over_probe=over_probe,
    )


_SUFFIX = "-validation.json"


def _scores(candidate: ValidatedTrial, metric: str) -> NDArray[np.float64]:
    """(seeds, N) values of which a greater one is better."""
    return candidate.correct.astype(np.float64) if metric == "val_accuracy" else -candidate.losses


def _finalist(candidate: ValidatedTrial, metric: str) -> Finalist:
    correct, losses, trial = candidate.correct, candidate.losses, candidate.trial
    accuracies = tuple(float(value) for value in correct.mean(axis=1))
    by_accuracy = metric == "val_accuracy"
    return Finalist(
        trial=trial.number,
        method=trial.method,
        searched=float(trial.value) if trial.value is not None else math.nan,
        values=accuracies if by_accuracy else tuple(float(value) for value in losses.mean(axis=1)),
        accuracies=accuracies,
        mean=mean_accuracy(correct) if by_accuracy else mean_interval(losses),
        epochs=tuple(run.epoch for run in candidate.runs),
    )


def _save(path: Path, trial: TrialRecord, result: ValidationResult | None) -> None:
    if result is None:
        facts: dict[str, Any] = {"epoch": 0, "correct": pack_bits(np.zeros(0, bool))}
        facts["losses"] = pack_floats(np.zeros(0, np.float32))
    else:
        facts = {"epoch": result.metrics.epoch, "correct": result.correct, "losses": result.losses}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({**facts, "params": dict(trial.params)}))
