"""Trains the chosen configurations again, with seeds that no trial had.

Trials were selected because they did well, and partly because they were lucky. New seeds measure a configuration
without that luck. :mod:`search.study.evaluation` then measures the trained models on the test split.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.config.search_config import SearchConfig
from search.execution.engines.dispatch import dispatch
from search.execution.engines.jobs import TrainedModel, TrainFully
from search.execution.engines.messages import WorkbenchPaths
from search.execution.engines.session import Session
from search.execution.stop_request import StopRequest
from search.fault_injection import failpoint
from search.records.atomic_file import write_text
from search.records.pareto import diverse_subset, objective_losses
from search.records.record import Parameters, SearchRecord, TrialRecord
from search.views.view import View
from trainables.training.trial_config import TrialConfig

OLD_ACCURACIES = ("old_accuracy_before", "old_accuracy")
OLD_CORRECT = "old_right"
"""Keys of the JSON file of a training; earlier versions wrote the same."""


@dataclass(frozen=True)
class ConfirmationRun:
    """One training of a chosen configuration with one seed.

    Attributes:
        seed: of the training.
        model: the served model, a ``.keras`` file.
        val_accuracy: of the best epoch, from 0 to 1.
        val_loss: of the best epoch.
        old_accuracies: accuracy on the task to remember, before and after the training.
        old_correct: whether each test image of that task was classified correctly, before and after, as
            :func:`search.records.predictions.pack_bits` writes it.
    """

    seed: int
    model: Path
    val_accuracy: float
    val_loss: float
    old_accuracies: tuple[float, float] | None = None
    old_correct: tuple[str, str] | None = None


@dataclass(frozen=True)
class ConfirmationCandidate:
    """A configuration to train again, for a number of epochs: a point of the search, or the best of a baseline."""

    trial: TrialRecord
    epochs: int


def trials_to_confirm(record: SearchRecord, max_points: int) -> tuple[TrialRecord, ...]:
    """Return the best trial; with several objectives at most ``max_points`` of the front, the best in the first one
    first.
    """
    if not record.front:
        return (record.best,) if record.best else ()
    losses = [objective_losses(trial.objectives, record.objectives) or () for trial in record.front]
    return tuple(record.front[index] for index in diverse_subset(losses, max_points))


def confirmation_seeds(config: SearchConfig) -> tuple[int, ...]:
    """Return the seeds of the trainings.

    No trial of the search has one of them, because trials count up from another base.
    """
    return tuple((config.seed * 1_000_003 + 2**30 + k) % 2**31 for k in range(config.confirm_seeds))


def best_run_index(runs: Sequence[ConfirmationRun]) -> int:
    """Index of the training whose model is registered: the best on validation data, the lower loss on a tie."""
    return min(range(len(runs)), key=lambda i: (-runs[i].val_accuracy, runs[i].val_loss))


def retrain(
    candidates: Sequence[ConfirmationCandidate],
    config: SearchConfig,
    session: Session,
    paths_of: Callable[[Parameters], WorkbenchPaths],
    directory: Path,
    view: View,
    stop_request: StopRequest,
) -> list[list[ConfirmationRun]]:
    """Train each candidate with each of the confirmation seeds, with live augmentation.

    Each training leaves its model and a JSON file in ``directory``, so that trainings which an interrupted run of the
    command has finished are not repeated.

    Args:
        paths_of: backbone and data for the parameters of a trial.
        directory: folder of the models.

    Returns:
        For each candidate its trainings by seed. Some are missing if ``stop_request`` asked to end at once.
    """
    seeds = confirmation_seeds(config)
    planned = [(candidate, seed) for candidate in candidates for seed in seeds]
    jobs = {
        index: TrainFully(
            _training_config(candidate, seed, config),
            paths_of(candidate.trial.params),
            _run_file(directory, candidate.trial, seed, ".keras"),
        )
        for index, (candidate, seed) in enumerate(planned)
        if read_run(directory, candidate.trial, seed) is None
    }
    left = len(jobs)
    # The trainings of winner and baselines are dispatched together, so that no engine is idle meanwhile.
    view.stage("winner", len(planned) - left, len(planned))
    for index, trained in dispatch(session, jobs, lambda: stop_request.immediate):
        candidate, seed = planned[index]
        _save_run(directory, candidate.trial, seed, trained)
        failpoint("retrained")
        left -= 1
        view.stage("winner", len(planned) - left, len(planned))
    done = [[read_run(directory, candidate.trial, seed) for seed in seeds] for candidate in candidates]
    return [[run for run in runs if run is not None] for runs in done]


def read_run(directory: Path, trial: TrialRecord, seed: int) -> ConfirmationRun | None:
    """Return the finished training of ``trial`` with ``seed``.

    None if it is missing or damaged and has to be repeated.
    """
    model, facts = (_run_file(directory, trial, seed, suffix) for suffix in (".keras", ".json"))
    try:
        metrics = json.loads(facts.read_text())
        with zipfile.ZipFile(model) as archive:
            if archive.testzip() is not None:  # checks all CRCs: after a power cut a file may miss pages
                return None
        before, after = OLD_ACCURACIES
        return ConfirmationRun(
            seed,
            model,
            metrics["val_accuracy"],
            metrics["val_loss"],
            old_accuracies=(metrics[before], metrics[after]) if before in metrics else None,
            old_correct=tuple(metrics[OLD_CORRECT]) if OLD_CORRECT in metrics else None,
        )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


def _save_run(directory: Path, trial: TrialRecord, seed: int, trained: TrainedModel) -> None:
    """Write the JSON file of a training. It comes after the model, so that it marks a whole training."""
    best = trained.metrics
    facts: dict[str, Any] = {
        "val_accuracy": best.val_accuracy,
        "val_loss": best.val_loss,
        "epoch": best.epoch,
    }
    if trained.old_accuracies is not None:
        facts |= dict(zip(OLD_ACCURACIES, trained.old_accuracies, strict=True))
    if trained.old_correct is not None:
        facts[OLD_CORRECT] = trained.old_correct
    facts["params"] = dict(trial.params)
    write_text(_run_file(directory, trial, seed, ".json"), json.dumps(facts))


def _training_config(candidate: ConfirmationCandidate, seed: int, config: SearchConfig) -> TrialConfig:
    trial = candidate.trial
    return TrialConfig(
        method=trial.method,
        params=dict(trial.params),
        epochs=candidate.epochs,
        batch_size=trial.batch_size or config.batch_size,  # a trial that lacked memory had smaller batches
        seed=seed,
        metric=config.metric,
        batch_norm=config.batch_norm,
        live=True,  # new distortions in every epoch, where trials share a few
    )


def _run_file(directory: Path, trial: TrialRecord, seed: int, suffix: str) -> Path:
    return directory / f"{trial.method}-{trial.number}-seed-{seed}{suffix}"
