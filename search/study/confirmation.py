"""The winner: trained again on its own, measured once on test data, compared with the baseline."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np

from search.config.search_config import SearchConfig
from search.execution.engines.dispatch import dispatch
from search.execution.engines.jobs import (
    ClassifySplit,
    MeasureFootprint,
    SplitClassification,
    TrainedModel,
    TrainFully,
)
from search.execution.engines.messages import WorkbenchPaths
from search.execution.engines.session import Session
from search.execution.stop_request import StopRequest
from search.fault_injection import failpoint
from search.records.atomic_file import write_text
from search.records.pareto import diverse_subset, objective_losses
from search.records.predictions import (
    OldTaskPredictions,
    PredictionRecord,
    image_keys,
    split_digest,
    write_predictions,
)
from search.records.record import (
    Baseline,
    ErrorExample,
    OldTask,
    Outcome,
    Parameters,
    SearchRecord,
    TrialRecord,
)
from search.records.stats.calibration import calibration_of
from search.records.stats.forgetting import compare_old_task
from search.records.stats.intervals import paired_gain, verdict, wilson
from search.views.view import View
from trainables.data.split_file import Split
from trainables.data.task import Task
from trainables.serving.footprint import Footprint
from trainables.training.trial_config import BatchNorm, TrialConfig

OLD_ACCURACIES = ("old_accuracy_before", "old_accuracy")
OLD_CORRECT = "old_right"

MAX_EXAMPLES = 12
"""Right and wrong test images, of each at most, that the report shows."""


@dataclass(frozen=True)
class ConfirmationRun:
    """One training of a chosen configuration with one seed."""

    seed: int
    model: Path
    val_accuracy: float
    val_loss: float
    old: tuple[float, float] | None = None
    """Accuracy on the old task before and after, where there is one."""

    old_right: tuple[str, str] | None = None
    """Whether each of its test images was right, before and after, as :func:`search.records.predictions.pack_bits`
    makes it.
    """


@dataclass(frozen=True)
class BaselineRuns:
    """A baseline to compare with: the best of its ``trials``, and that one's trainings."""

    trial: TrialRecord
    runs: Sequence[ConfirmationRun]
    trials: int


def retrain(
    trials: Sequence[TrialRecord],
    epochs: Sequence[int],
    config: SearchConfig,
    session: Session,
    paths_of: Callable[[Parameters], WorkbenchPaths],
    directory: Path,
    view: View,
    stop_request: StopRequest,
) -> list[list[ConfirmationRun]]:
    """Train each chosen trial's configuration again, live, for its ``epochs``, with ``confirm_seeds`` new seeds.

    Trainings that an interrupted run finished are not repeated: each leaves its model and a JSON file. Returns
    early, with what there is, when ``halt`` says so.
    """
    asked = [(t, e, s) for t, e in zip(trials, epochs, strict=True) for s in confirmation_seeds(config)]
    jobs = {
        (n, seed): TrainFully(
            _training_config(trial, seed, length, config),
            paths_of(trial.params),
            _run_file(directory, trial, seed, ".keras"),
        )
        for n, (trial, length, seed) in enumerate(asked)
        if _read_run(directory, trial, seed) is None
    }
    whole = len(asked)
    left = len(jobs)
    view.stage("winner", whole - left, whole)
    for (n, seed), trained in dispatch(session, jobs, lambda: stop_request.immediate):
        trial = asked[n][0]
        write_text(
            _run_file(directory, trial, seed, ".json"),
            json.dumps({**_kept_metrics(trained), "params": dict(trial.params)}),
        )
        failpoint("retrained")
        left -= 1
        view.stage("winner", whole - left, whole)
    done = [[_read_run(directory, t, s) for s in confirmation_seeds(config)] for t in trials]
    return [[r for r in row if r is not None] for row in done]


def _kept_metrics(trained: TrainedModel) -> dict[str, Any]:
    """What the JSON file of a training keeps; :func:`_read_run` reads it, also in later versions."""
    best = trained.metrics
    kept: dict[str, Any] = {
        "val_accuracy": best.val_accuracy,
        "val_loss": best.val_loss,
        "epoch": best.epoch,
    }
    if trained.old_accuracies is not None:
        kept |= dict(zip(OLD_ACCURACIES, trained.old_accuracies, strict=True))
    if trained.old_correct is not None:
        kept[OLD_CORRECT] = trained.old_correct
    return kept


def confirmation_seeds(config: SearchConfig) -> tuple[int, ...]:
    """Seeds of the winner's trainings: none that a trial of the search had."""
    return tuple((config.seed * 1_000_003 + 2**30 + k) % 2**31 for k in range(config.confirm_seeds))


def trials_to_confirm(record: SearchRecord, most: int) -> tuple[TrialRecord, ...]:
    """What is confirmed: the best trial, or at most ``most`` points of the front, the best in the first one first."""
    if not record.front:
        return (record.best,) if record.best else ()
    placed = [objective_losses(trial.objectives, record.objectives) or () for trial in record.front]
    return tuple(record.front[index] for index in diverse_subset(placed, most))


def evaluate_on_test(
    points: Sequence[tuple[TrialRecord, Sequence[ConfirmationRun]]],
    rivals: Sequence[BaselineRuns],
    task_of: Callable[[Parameters], Task],
    session: Session,
) -> list[Outcome]:
    """Read the test split, once: the trainings of all ``trials_to_confirm`` and the baselines', on the same images.

    The gain is over the first of ``rivals``. ``task_of`` has the data at the input size of a trial's backbone: other
    sizes have the same images in the same order.

    Returns:
        An outcome for each point, in their order.
    """
    began = time.monotonic()
    tests = [_TestSplit.of(task_of(trial.params)) for trial, _ in points]
    groups = [*points, *((rival.trial, rival.runs) for rival in rivals)]
    models = [(run.model, task_of(trial.params)) for trial, runs in groups for run in runs]
    jobs = {i: ClassifySplit(model, task.directory, "test") for i, (model, task) in enumerate(models)}
    known = dict(dispatch(session, jobs))
    said = _group_predictions([known[i] for i in range(len(models))], [len(runs) for _, runs in groups])
    others = list(zip(rivals, said[len(points) :], strict=True))
    outcomes = [
        _outcome(trial, runs, own, others, task_of(trial.params), test)
        for (trial, runs), own, test in zip(points, said, tests, strict=False)
    ]
    footprints = [_footprint(o, points[0][1], task_of(o.params), session) for o in outcomes]
    seconds = time.monotonic() - began
    return [replace(o, footprint=f, seconds=seconds) for o, f in zip(outcomes, footprints, strict=True)]


SplitPredictions = Sequence[SplitClassification]
"""What each of some trainings said of the test images: classes, their probabilities, and those of the true classes."""


@dataclass(frozen=True, eq=False)
class _TestSplit:
    """The test split, with what its answers are kept with."""

    split: Split
    labels: np.ndarray
    digest: str
    keys: tuple[str, ...]

    @classmethod
    def of(cls, task: Task) -> _TestSplit:
        split = task.split("test")
        digest = split_digest(split.images, split.labels)
        return cls(split, np.array(split.labels), digest, image_keys(split.ids))


def _group_predictions(said: SplitPredictions, counts: Sequence[int]) -> list[SplitPredictions]:
    """What each group of so many trainings said."""
    ends = list(accumulate(counts))
    return [said[end - count : end] for count, end in zip(counts, ends, strict=True)]


def _outcome(
    trial: TrialRecord,
    runs: Sequence[ConfirmationRun],
    said: SplitPredictions,
    rivals: Sequence[tuple[BaselineRuns, SplitPredictions]],
    task: Task,
    test: _TestSplit,
) -> Outcome:
    split, labels, best = test.split, test.labels, best_run_index(runs)
    predicted = _predicted_classes(said, len(labels))
    certain, truth = (np.array([answer[part] for answer in said]) for part in (1, 2))
    right = predicted == labels
    compared = [
        _baseline_outcome(rival, _predicted_classes(own, len(labels)), labels)
        for rival, own in rivals
        if rival.runs
    ]
    confusion = np.zeros((len(task.classes), len(task.classes)), int)
    np.add.at(confusion, (labels, predicted[best]), 1)
    gain = paired_gain(right, compared[0][1] == labels) if compared else None
    from_scratch = next(((b, p) for b, p in compared if b.method == "scratch"), None)
    scratch = from_scratch[0] if from_scratch else None
    answers_file = runs[best].model.with_name(f"{trial.method}-{trial.number}-answers.parquet")
    answers = _answers(task, test, predicted, best, from_scratch[1] if from_scratch else predicted[:0])
    old = _old_answers(runs)
    write_predictions(
        answers_file,
        replace(answers, predicted_probability=certain, true_class_probability=truth, old_task=old),
    )
    return Outcome(
        trial=trial.number,
        params=dict(trial.params),
        seeds=tuple(r.seed for r in runs),
        val_accuracies=tuple(r.val_accuracy for r in runs),
        test_accuracy=wilson(int(right[best].sum()), len(labels)),
        seed_test_accuracies=tuple(float(a) for a in right.mean(axis=1)),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        scratch_params=scratch.params if scratch else None,
        scratch_trials=scratch.trials if scratch else 0,
        scratch_test_accuracies=scratch.test_accuracies if scratch else (),
        baselines=tuple(baseline for baseline, _ in compared),
        gain=gain,
        verdict=verdict(gain, min(len(runs), len(compared[0][0].test_accuracies))) if gain else None,
        calibration=calibration_of(certain[best], right[best], truth[best]),
        examples=_examples(split.images, labels, predicted[best], certain[best], task.classes),
        model_file=runs[best].model.name,
        answers_file=answers_file.name,
        old_task=_old_task(runs, best, old),
    )


def _old_task(runs: Sequence[ConfirmationRun], best: int, old: OldTaskPredictions | None) -> OldTask | None:
    known = [run.old for run in runs if run.old is not None]
    if len(known) < len(runs):
        return None
    lost = compare_old_task(old, best).lost if old is not None else None
    return OldTask(known[best][0], tuple(after for _, after in known), best, lost)


def _old_answers(runs: Sequence[ConfirmationRun]) -> OldTaskPredictions | None:
    """None without an old task; and where an earlier version has made some of the trainings."""
    known = [run.old_right for run in runs if run.old_right is not None]
    return OldTaskPredictions.from_packed(known) if len(known) == len(runs) else None


def _predicted_classes(said: SplitPredictions, images: int) -> np.ndarray:
    return np.array([classes for classes, *_ in said], dtype=np.int64).reshape(len(said), images)


def _baseline_outcome(
    rival: BaselineRuns, predicted: np.ndarray, labels: np.ndarray
) -> tuple[Baseline, np.ndarray]:
    """A baseline as it is kept, with the (seeds, N) classes that its trainings said."""
    accuracies = tuple(float(a) for a in (predicted == labels).mean(axis=1))
    trial = rival.trial
    return Baseline(trial.method, dict(trial.params), rival.trials, accuracies), predicted


def _footprint(outcome: Outcome, runs: Sequence[ConfirmationRun], task: Task, session: Session) -> Footprint:
    """Measured after all else, and one after the other: nothing runs beside it."""
    model = runs[0].model.with_name(outcome.model_file)
    return dict(dispatch(session, {0: MeasureFootprint(model, task.image_size)}))[0]


def best_run_index(runs: Sequence[ConfirmationRun]) -> int:
    """Index of the training that is registered: best on validation data, the lower loss on a tie."""
    return min(range(len(runs)), key=lambda i: (-runs[i].val_accuracy, runs[i].val_loss))


def _answers(
    task: Task, test: _TestSplit, predicted: np.ndarray, best: int, scratch: np.ndarray
) -> PredictionRecord:
    """What is kept for later comparisons, so that the test split need not be read again."""
    return PredictionRecord(
        classes=task.classes,
        image_size=task.image_size,
        digest=test.digest,
        images=test.keys,
        labels=test.labels,
        predicted=predicted,
        chosen=best,
        scratch=scratch,
    )


def _training_config(trial: TrialRecord, seed: int, epochs: int, config: SearchConfig) -> TrialConfig:
    return TrialConfig(
        method=trial.method,
        params=dict(trial.params),
        epochs=epochs,
        batch_size=trial.batch_size or config.batch_size,
        seed=seed,
        metric=config.metric,
        batch_norm=cast("BatchNorm", config.batch_norm),
        live=True,
    )


def _run_file(directory: Path, trial: TrialRecord, seed: int, suffix: str) -> Path:
    return directory / f"{trial.method}-{trial.number}-seed-{seed}{suffix}"


def _read_run(directory: Path, trial: TrialRecord, seed: int) -> ConfirmationRun | None:
    model, facts = (_run_file(directory, trial, seed, suffix) for suffix in (".keras", ".json"))
    try:
        metrics = json.loads(facts.read_text())
        with zipfile.ZipFile(model) as archive:
            if archive.testzip() is not None:
                return None
        old = (
            (metrics[OLD_ACCURACIES[0]], metrics[OLD_ACCURACIES[1]]) if OLD_ACCURACIES[0] in metrics else None
        )
        right = tuple(metrics[OLD_CORRECT]) if OLD_CORRECT in metrics else None
        return ConfirmationRun(seed, model, metrics["val_accuracy"], metrics["val_loss"], old, right)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None  # not there yet, or damaged: it is trained again


def _examples(
    images: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    certain: np.ndarray,
    classes: Sequence[str],
) -> tuple[ErrorExample, ...]:
    """The surest wrong answers, then the least sure right ones."""
    wrong = sorted(np.flatnonzero(predicted != labels), key=lambda i: -certain[i])[:MAX_EXAMPLES]
    right = sorted(np.flatnonzero(predicted == labels), key=lambda i: certain[i])[:MAX_EXAMPLES]
    return tuple(
        ErrorExample(_png(images[i]), classes[labels[i]], classes[predicted[i]], float(certain[i]))
        for i in [*wrong, *right]
    )


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((96, 96))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
