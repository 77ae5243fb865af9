"""Trains the chosen configurations for the last time, with seeds that no trial had, and keeps the models.

Trials were selected because they did well, and partly because they were lucky. New seeds measure a configuration
without that luck. A refit learns from training and validation images together, for as many epochs as were best without
the latter (:mod:`search.study.winner.selection`), because no images are left by which the best epoch could be chosen.
:mod:`search.study.winner.evaluation` then measures the trained models on the test split.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from search.config.search_config import SearchConfig
from search.execution.engines.dispatch import dispatch
from search.execution.engines.jobs import Job, TrainedModel, TrainFully
from search.execution.engines.messages import WorkbenchPaths
from search.execution.engines.session import Session
from search.execution.stop_request import StopRequest
from search.fault_injection import failpoint
from search.records.atomic_file import write_text
from search.records.record import Parameters, TrialRecord
from search.views.view import View
from trainables.methods.methods import PROBE
from trainables.training.trial_config import TrialConfig

Result = TypeVar("Result")

OLD_ACCURACIES = ("old_accuracy_before", "old_accuracy")
OLD_CORRECT = "old_right"
"""Keys of the JSON file of a training; earlier versions wrote the same."""


@dataclass(frozen=True)
class ConfirmationRun:
    """One training of a chosen configuration with one seed.

    Attributes:
        seed: of the training.
        model: the served model, a ``.keras`` file.
        val_accuracy: of the best epoch, from 0 to 1; of the last one, on images that it has learned, in a refit.
        val_loss: of the same epoch.
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
    """A configuration to train again: a finalist of the search, or the best trial of a baseline.

    Attributes:
        epochs: number of epochs of the whole schedule.
        refit_epochs: number of epochs to train on training and validation images together; None to train on the
            training images for the whole schedule, and to keep the best epoch.
    """

    trial: TrialRecord
    epochs: int
    refit_epochs: int | None = None


def confirmation_seeds(config: SearchConfig) -> tuple[int, ...]:
    """Return the seeds of the trainings.

    No trial of the search has one of them, because trials count up from another base.
    """
    return tuple((config.seed * 1_000_003 + 2**30 + k) % 2**31 for k in range(config.confirm_seeds))


def best_run_index(runs: Sequence[ConfirmationRun]) -> int:
    """Index of the training that is best on validation data; the lower loss on a tie."""
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
    """Train each candidate with each of the confirmation seeds, with live augmentation, and keep the models.

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

    def paths(candidate: ConfirmationCandidate) -> WorkbenchPaths:
        known = paths_of(candidate.trial.params)
        return known if candidate.refit_epochs is None else known.for_refit()

    jobs = {
        index: TrainFully(
            replace(training_config(candidate, seed, config), live=_is_augmented(candidate.trial)),
            paths(candidate),
            _model_file(directory, candidate, seed, ".keras"),
        )
        for index, (candidate, seed) in enumerate(planned)
        if read_run(directory, candidate, seed) is None
    }

    def save(index: int, trained: TrainedModel) -> None:
        _save_run(directory, *planned[index], trained)

    # The trainings of winner and baselines are dispatched together, so that no engine is idle meanwhile.
    dispatch_missing(jobs, save, len(planned), "winner", session, view, stop_request)
    done = [[read_run(directory, candidate, seed) for seed in seeds] for candidate in candidates]
    return [[run for run in runs if run is not None] for runs in done]


def dispatch_missing(
    jobs: Mapping[int, Job[Result]],
    save: Callable[[int, Result], None],
    planned: int,
    stage: str,
    session: Session,
    view: View,
    stop_request: StopRequest,
) -> None:
    """Run the trainings that are missing, and save each as soon as it is done.

    Args:
        jobs: by the index of the training among all that are planned.
        save: writes a result to its file.
        planned: number of all trainings, with those that an interrupted run of the command has finished.
        stage: what the trainings are for, for the view.
    """
    left = len(jobs)
    view.stage(stage, planned - left, planned)
    for index, result in dispatch(session, jobs, lambda: stop_request.immediate):
        save(index, result)
        failpoint("retrained")
        left -= 1
        view.stage(stage, planned - left, planned)


def read_run(directory: Path, candidate: ConfirmationCandidate, seed: int) -> ConfirmationRun | None:
    """Return the finished training of ``candidate`` with ``seed``.

    None if it is missing or damaged and has to be repeated.
    """
    model, facts = (_model_file(directory, candidate, seed, suffix) for suffix in (".keras", ".json"))
    try:
        metrics = json.loads(facts.read_text())
        if candidate.refit_epochs not in (None, metrics["epoch"]):
            return None
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


def _save_run(directory: Path, candidate: ConfirmationCandidate, seed: int, trained: TrainedModel) -> None:
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
    facts["params"] = dict(candidate.trial.params)
    write_text(_model_file(directory, candidate, seed, ".json"), json.dumps(facts))


def training_config(candidate: ConfirmationCandidate, seed: int, config: SearchConfig) -> TrialConfig:
    """Return what an engine trains for ``candidate`` with ``seed``."""
    trial = candidate.trial
    return TrialConfig(
        method=trial.method,
        params={**trial.params, **_chosen_probe(trial)},
        epochs=candidate.epochs,
        batch_size=trial.batch_size or config.batch_size,  # a trial that lacked memory had smaller batches
        seed=seed,
        metric=config.metric,
        batch_norm=config.batch_norm,
        head_init=trial.head_init,
        stop_epoch=candidate.refit_epochs,
        keep="best" if candidate.refit_epochs is None else "last",
    )


def _chosen_probe(trial: TrialRecord) -> Parameters:
    """Return what a trial of the frozen probe chose, as parameters: the same cut, and views only if they won."""
    cost = trial.cost
    if trial.method != PROBE or "probe_depth" not in cost:
        return {}
    return {"probe_depth": int(cost["probe_depth"]), "augmentation_strength": float(cost["probe_strength"])}


def run_file(directory: Path, trial: TrialRecord, seed: int, suffix: str) -> Path:
    """Return a file of the training of ``trial`` with ``seed``."""
    return directory / f"{trial.method}-{trial.number}-seed-{seed}{suffix}"


def _model_file(directory: Path, candidate: ConfirmationCandidate, seed: int, suffix: str) -> Path:
    refit = "" if candidate.refit_epochs is None else "-refit"
    return run_file(directory, candidate.trial, seed, f"{refit}{suffix}")


def _is_augmented(trial: TrialRecord) -> bool:
    """Whether a training sees distorted images: if so, new ones in every epoch, where trials share a few.

    Without distortions, training on kept activations gives the same model in less time.
    """
    strength = float(trial.params.get("augmentation_strength") or 0.0)
    return trial.method != PROBE and (strength > 0 or bool(trial.params.get("horizontal_flip")))
