"""Measures the confirmed models on the test split, once, and compares them with the baselines."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from search.execution.engines.dispatch import dispatch
from search.execution.engines.jobs import ClassifySplit, EvaluateServedModel, SplitClassification
from search.execution.engines.session import Session
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
    Selection,
    TrialRecord,
)
from search.records.stats.calibration import calibration_of
from search.records.stats.forgetting import compare_old_task
from search.records.stats.intervals import mean_accuracy, paired_gain, verdict, wilson
from search.study.winner.confirmation import ConfirmationRun, best_run_index
from trainables.data.split_file import Split
from trainables.data.task import Task
from trainables.methods.methods import PROBE
from trainables.serving.footprint import Footprint

MAX_EXAMPLES = 12
"""Most wrong, and most right, test images that are kept for the report."""

EXAMPLE_PIXELS = 96
"""Longest side of these images."""


@dataclass(frozen=True)
class ConfirmedTrial:
    """A chosen configuration with its trainings.

    Attributes:
        selection: how it was chosen among several; None if it was not.
        refit_epochs: number of epochs of its trainings, if they learned from the validation images, too.
    """

    trial: TrialRecord
    runs: Sequence[ConfirmationRun]
    selection: Selection | None = None
    refit_epochs: int | None = None

    @property
    def registered(self) -> int:
        """Index of the training whose model is registered.

        After a refit no images are left by which one of the trainings could be chosen, so it is the first one.
        """
        return best_run_index(self.runs) if self.refit_epochs is None else 0

    @property
    def val_accuracies(self) -> tuple[float, ...]:
        """Validation accuracy of each seed, measured without having trained on the validation images."""
        if self.refit_epochs is not None and self.selection is not None:
            return self.selection.winner.accuracies
        return tuple(run.val_accuracy for run in self.runs)


@dataclass(frozen=True)
class BaselineRuns:
    """A baseline to compare with: the best of its ``trials`` trials, and the trainings of that one."""

    trial: TrialRecord
    runs: Sequence[ConfirmationRun]
    trials: int


def evaluate_on_test(
    points: Sequence[ConfirmedTrial],
    baselines: Sequence[BaselineRuns],
    task_of: Callable[[Parameters], Task],
    session: Session,
    probe: BaselineRuns | None = None,
) -> list[Outcome]:
    """Classify the test split with all trainings of points and baselines, and compare them on the same images.

    This is the only place of a search that reads test labels.

    Args:
        points: the winner; with several objectives the confirmed points of the front, the winner first.
        baselines: the gain is over the first of them.
        task_of: the data at the input size of the backbone of a trial. Other sizes hold the same images in the same
            order.
        probe: the frozen probe, if there is one and it is none of the points.

    Returns:
        An outcome for each point, in their order.
    """
    began = time.monotonic()
    tests = [_TestSplit.of(task_of(point.trial.params)) for point in points]
    references = [*baselines, *([probe] if probe else [])]
    classified, footprints = _classify_all(points, references, task_of, session)
    labels = tests[0].labels  # the same for all input sizes

    def compared(reference: BaselineRuns) -> _ComparedBaseline:
        return _ComparedBaseline.of(reference, [classified[run.model] for run in reference.runs], labels)

    others = [compared(baseline) for baseline in baselines if baseline.runs]
    probed = compared(probe) if probe is not None and probe.runs else None
    outcomes = [
        _outcome(point, [classified[run.model] for run in point.runs], others, probed, test)
        for point, test in zip(points, tests, strict=True)
    ]
    seconds = time.monotonic() - began
    return [replace(o, footprint=f, seconds=seconds) for o, f in zip(outcomes, footprints, strict=True)]


def _classify_all(
    points: Sequence[ConfirmedTrial],
    references: Sequence[BaselineRuns],
    task_of: Callable[[Parameters], Task],
    session: Session,
) -> tuple[Mapping[Path, SplitClassification], list[Footprint]]:
    """Predictions for the test split by the file of each model, and the footprint of each point's registered model."""
    registered = [point.runs[point.registered].model for point in points]
    groups = [(group.trial, group.runs) for group in points]
    groups += [(group.trial, group.runs) for group in references]
    tasks = {run.model: task_of(trial.params) for trial, runs in groups for run in runs}
    jobs = {
        model: ClassifySplit(model, task.directory, "test")
        for model, task in tasks.items()
        if model not in registered
    }
    classified = dict(dispatch(session, jobs))
    footprints = []
    # Latency is measured last, one model after the other, because a time is meaningful only while nothing else runs.
    for model in registered:
        task = tasks[model]
        job = EvaluateServedModel(model, task.directory, "test", task.image_size)
        classified[model], footprint = dict(dispatch(session, {model: job}))[model]
        footprints.append(footprint)
    return classified, footprints


@dataclass(frozen=True, eq=False)
class _TestSplit:
    """The test split, and what identifies it in the file of predictions."""

    task: Task
    split: Split
    labels: np.ndarray
    digest: str
    keys: tuple[str, ...]

    @classmethod
    def of(cls, task: Task) -> _TestSplit:
        split = task.split("test")
        digest = split_digest(split.images, split.labels)
        return cls(task, split, np.array(split.labels), digest, image_keys(split.ids))

    def record_of(self, predicted: np.ndarray, chosen: int, scratch: np.ndarray) -> PredictionRecord:
        """Predictions for this split, as later comparisons read them.

        Args:
            predicted: (seeds, N) class indices.
            chosen: row of the registered model.
            scratch: (seeds, N) class indices of the baseline from scratch; (0, N) without one.
        """
        return PredictionRecord(
            classes=self.task.classes,
            image_size=self.task.image_size,
            digest=self.digest,
            images=self.keys,
            labels=self.labels,
            predicted=predicted,
            chosen=chosen,
            scratch=scratch,
        )


@dataclass(frozen=True, eq=False)
class _ComparedBaseline:
    """A baseline as the outcome keeps it, with the (seeds, N) classes that its trainings predict."""

    baseline: Baseline
    predicted: np.ndarray

    @classmethod
    def of(
        cls, baseline: BaselineRuns, classified: Sequence[SplitClassification], labels: np.ndarray
    ) -> _ComparedBaseline:
        predicted = _predicted_classes(classified, len(labels))
        accuracies = tuple(float(a) for a in (predicted == labels).mean(axis=1))
        trial = baseline.trial
        return cls(Baseline(trial.method, dict(trial.params), baseline.trials, accuracies), predicted)


def _outcome(
    point: ConfirmedTrial,
    classified: Sequence[SplitClassification],
    baselines: Sequence[_ComparedBaseline],
    probe: _ComparedBaseline | None,
    test: _TestSplit,
) -> Outcome:
    """Return the outcome of one point; its predictions are kept in a file next to its models.

    Args:
        probe: the frozen probe, if the point is another model.
    """
    trial, runs, labels = point.trial, point.runs, test.labels
    best = point.registered
    predicted = _predicted_classes(classified, len(labels))
    probability = np.array([each.probabilities for each in classified])
    true_probability = np.array([each.true_probabilities for each in classified])
    correct = predicted == labels
    gain = paired_gain(correct, baselines[0].predicted == labels) if baselines else None
    scratch = next((b for b in baselines if b.baseline.method == "scratch"), None)
    accuracies = tuple(float(a) for a in correct.mean(axis=1))
    own_probe = Baseline(PROBE, dict(trial.params), 1, accuracies) if trial.method == PROBE else None
    old = _old_task_predictions(runs)
    predictions = replace(
        test.record_of(predicted, best, scratch.predicted if scratch else predicted[:0]),
        predicted_probability=probability,
        true_class_probability=true_probability,
        old_task=old,
    )
    # Later comparisons with other models read this file, so that the test split is not read again.
    predictions_file = runs[best].model.with_name(f"{trial.method}-{trial.number}-answers.parquet")
    write_predictions(predictions_file, predictions)
    return Outcome(
        trial=trial.number,
        params=dict(trial.params),
        seeds=tuple(run.seed for run in runs),
        val_accuracies=point.val_accuracies,
        test_accuracy=wilson(int(correct[best].sum()), len(labels)),
        seed_test_accuracies=accuracies,
        confusion=_confusion(labels, predicted[best], len(test.task.classes)),
        scratch_params=scratch.baseline.params if scratch else None,
        scratch_trials=scratch.baseline.trials if scratch else 0,
        scratch_test_accuracies=scratch.baseline.test_accuracies if scratch else (),
        baselines=tuple(b.baseline for b in baselines),
        gain=gain,
        verdict=verdict(gain, min(len(runs), len(baselines[0].baseline.test_accuracies))) if gain else None,
        calibration=calibration_of(probability[best], correct[best], true_probability[best]),
        examples=_examples(test.split.images, labels, predicted[best], probability[best], test.task.classes),
        model_file=runs[best].model.name,
        answers_file=predictions_file.name,
        old_task=_old_task(runs, best, old),
        mean_test_accuracy=mean_accuracy(correct),
        registered=best,
        selection=point.selection,
        refit=point.refit_epochs is not None,
        refit_epochs=point.refit_epochs,
        probe=own_probe or (probe.baseline if probe else None),
        probe_gain=paired_gain(correct, probe.predicted == labels) if probe and own_probe is None else None,
        probe_won=own_probe is not None,
    )


def _predicted_classes(classified: Sequence[SplitClassification], images: int) -> np.ndarray:
    """(seeds, N) class indices; (0, N) without any training."""
    return np.array([each.classes for each in classified], dtype=np.int64).reshape(len(classified), images)


def _confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> tuple[tuple[int, ...], ...]:
    """Images of each true class (row) by predicted class (column)."""
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predicted), 1)
    return tuple(tuple(int(n) for n in row) for row in counts)


def _old_task(
    runs: Sequence[ConfirmationRun], best: int, predictions: OldTaskPredictions | None
) -> OldTask | None:
    """Accuracy on the task to remember, before and after; None without such a task."""
    known = [run.old_accuracies for run in runs if run.old_accuracies is not None]
    if len(known) < len(runs):
        return None
    lost = compare_old_task(predictions, best).lost if predictions is not None else None
    return OldTask(known[best][0], tuple(after for _, after in known), best, lost)


def _old_task_predictions(runs: Sequence[ConfirmationRun]) -> OldTaskPredictions | None:
    """None without a task to remember, and if an earlier version, which kept none, made some of the trainings."""
    known = [run.old_correct for run in runs if run.old_correct is not None]
    return OldTaskPredictions.from_packed(known) if len(known) == len(runs) else None


def _examples(
    images: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    probability: np.ndarray,
    classes: Sequence[str],
) -> tuple[ErrorExample, ...]:
    """Return the wrong answers with the highest probability, then the right ones with the lowest."""
    wrong = sorted(np.flatnonzero(predicted != labels), key=lambda i: -probability[i])[:MAX_EXAMPLES]
    right = sorted(np.flatnonzero(predicted == labels), key=lambda i: probability[i])[:MAX_EXAMPLES]
    return tuple(
        ErrorExample(_png(images[i]), classes[labels[i]], classes[predicted[i]], float(probability[i]))
        for i in [*wrong, *right]
    )


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((EXAMPLE_PIXELS, EXAMPLE_PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
