"""Defines the one-shot jobs of an engine: everything it does except the epochs of trials.

A job is a frozen dataclass that is pickled, sent to an engine, and run there. A new job is one class with a ``run``
method; :func:`search.execution.engines.dispatch.dispatch` spreads jobs over all engines of a session.

TensorFlow is imported inside ``run``: the driver creates jobs and must not load it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from search.execution.engines.messages import WorkbenchPaths
from search.execution.engines.workbenches import Workbenches
from search.records.record import BackboneSummary
from trainables.backbones.spec import BackboneSpec
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import BackboneError, DataError, Diverged
from trainables.serving.architecture_costs import Architecture
from trainables.training.trial_config import TrialConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainables.serving.footprint import Footprint
    from trainables.training.training import Training
    from trainables.training.workbench import Workbench

CLASSIFIED_AT_ONCE = 256
"""Images in one batch of :class:`ClassifySplit`."""

SMALLEST_PROBABILITY = 1e-7
"""Bounds the cross-entropy of an image whose true class has no probability; Keras uses the same bound."""

Result = TypeVar("Result", covariant=True)


class Job(Protocol[Result]):
    """A piece of work that an engine does once."""

    def run(self, workbenches: Workbenches) -> Result:
        """Do the work in the engine's process."""
        ...


@dataclass(frozen=True)
class PrepareBackbone:
    """Loads a backbone and saves it as one normalised file."""

    spec: BackboneSpec
    file: Path

    def run(self, workbenches: Workbenches) -> BackboneSummary:
        """Return a description of the backbone; a whole file that is there already is not written again."""
        from trainables.backbones.backbone import Backbone
        from trainables.modalities.image.backbones import load

        try:
            backbone = Backbone.open(self.file)
        except BackboneError:  # not there yet, or damaged
            backbone = load(self.spec)
            self.file.parent.mkdir(parents=True, exist_ok=True)
            backbone.save(self.file)
        return BackboneSummary(
            name=backbone.name,
            weights=backbone.weights,
            digest=backbone.digest,
            input_size=backbone.input_size,
            parameters=backbone.parameters,
            blocks=tuple(block.name for block in backbone.blocks),
        )


@dataclass(frozen=True)
class TrainedModel:
    """What :class:`TrainFully` reports.

    Attributes:
        metrics: of the epoch whose weights the model has: the best one, or the last one of a refit.
        old_accuracies: accuracy on the test split of the task to remember, before and after the training.
        old_correct: whether each of its images was classified correctly before and after, as
            :func:`search.records.predictions.pack_bits` writes it.
    """

    metrics: EpochMetrics
    old_accuracies: tuple[float, float] | None = None
    old_correct: tuple[str, str] | None = None


@dataclass(frozen=True)
class TrainFully:
    """Trains a configuration to its end and saves the served model to ``model``.

    The model has the weights of the best epoch, or of the last one if the configuration says so.
    """

    config: TrialConfig
    paths: WorkbenchPaths
    model: Path

    def run(self, workbenches: Workbenches) -> TrainedModel:
        """Return the metrics of the epoch whose weights the model has."""
        from trainables.serving.served_model import save_served_model

        with _trained(self.config, workbenches.open(self.paths)) as (training, best):
            with workbenches.lock:
                save_served_model(training, self.model)
            return _trained_model(training, best)


class ValidationResult(NamedTuple):
    """How a configuration does on the N validation images.

    Attributes:
        metrics: of the best epoch.
        correct: whether each image is classified correctly at that epoch, as
            :func:`search.records.predictions.pack_bits` writes it.
        losses: cross-entropy of each image, as :func:`search.records.predictions.pack_floats` writes it.
    """

    metrics: EpochMetrics
    correct: str
    losses: str


@dataclass(frozen=True)
class ValidateConfig:
    """Trains a configuration to its end and classifies the validation images with the weights of its best epoch."""

    config: TrialConfig
    paths: WorkbenchPaths

    def run(self, workbenches: Workbenches) -> ValidationResult | None:
        """Return the result; None if the loss diverged, which other seeds need not have shown."""
        import numpy as np

        from search.records.predictions import pack_bits, pack_floats

        bench = workbenches.open(self.paths)
        try:
            with _trained(self.config, bench) as (training, best):
                probabilities = training.predict("validation")
        except Diverged:
            return None
        labels = np.asarray(bench.task.split("validation").labels)
        true = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0].astype(np.float64)
        return ValidationResult(
            best,
            pack_bits(probabilities.argmax(axis=1) == labels),
            pack_floats(-np.log(np.maximum(true, SMALLEST_PROBABILITY)).astype(np.float32)),
        )


class SplitClassification(NamedTuple):
    """What a model predicts for the N images of a split.

    Attributes:
        classes: (N,) index of the most probable class.
        probabilities: (N,) probability of that class.
        true_probabilities: (N,) probability of the image's true class.
    """

    classes: np.ndarray
    probabilities: np.ndarray
    true_probabilities: np.ndarray


@dataclass(frozen=True)
class ClassifySplit:
    """Classifies the raw images of a prepared task's split with a saved model."""

    model: Path
    task: Path
    split: str

    def run(self, workbenches: Workbenches) -> SplitClassification:
        """Return predictions in the order of the split."""
        import keras

        model = keras.saving.load_model(self.model, compile=False, safe_mode=True)
        return _classify(model, workbenches.local_folder(self.task), self.split)


@dataclass(frozen=True)
class EvaluateServedModel:
    """Does what :class:`ClassifySplit` does and measures what the model costs to serve; the model is loaded once.

    The times are meaningful only while nothing else runs on the machine.
    """

    model: Path
    task: Path
    split: str
    image_size: tuple[int, int]

    def run(self, workbenches: Workbenches) -> tuple[SplitClassification, Footprint]:
        """Return predictions in the order of the split; size, load time and latencies."""
        from trainables.serving.footprint import footprint_of_loaded, load_timed

        model, seconds = load_timed(self.model)
        classified = _classify(model, workbenches.local_folder(self.task), self.split)
        return classified, footprint_of_loaded(model, self.model, seconds, self.image_size)


@dataclass(frozen=True)
class ScoringJobResult:
    """Transferability scores of one backbone by name, and the seconds that they took."""

    scores: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class ScoreBackbone:
    """Scores how well a frozen backbone's features suit a task, on at most ``max_images`` training and validation
    images. Test images are not read.
    """

    paths: WorkbenchPaths
    max_images: int
    seed: int

    def run(self, workbenches: Workbenches) -> ScoringJobResult:
        """Return the scores of :func:`trainables.transferability.feature_sample.score_sample`."""
        from trainables.transferability.feature_sample import extract_features, score_sample, shared_image_ids

        workbench, began = workbenches.open(self.paths), time.monotonic()
        images = shared_image_ids([workbench.task], self.seed)[: self.max_images]
        scores = score_sample(extract_features(workbench.activations, workbench.task, images))
        return ScoringJobResult(scores, time.monotonic() - began)


@dataclass(frozen=True)
class CountParameters:
    """Counts the parameters of served models of some architectures."""

    architectures: tuple[Architecture, ...]

    def run(self, workbenches: Workbenches) -> list[int]:
        """Return the numbers of parameters in the order of the architectures."""
        from trainables.serving.architecture_costs import parameter_counts

        return parameter_counts(self.architectures)


@dataclass(frozen=True)
class TimeArchitectures:
    """Times served models of some architectures in turn; takes seconds for each."""

    architectures: tuple[Architecture, ...]

    def run(self, workbenches: Workbenches) -> NDArray[np.float64]:
        """Return (architectures, rounds) milliseconds for one image."""
        from trainables.serving.architecture_costs import paired_times

        return paired_times(self.architectures)


def _classify(model: Any, task: Path, split_name: str) -> SplitClassification:
    import numpy as np

    from trainables.data.task import open_task

    split = open_task(task).split(split_name)
    labels = np.asarray(split.labels)
    batches = []
    for start in range(0, len(labels), CLASSIFIED_AT_ONCE):
        end = start + CLASSIFIED_AT_ONCE
        predicted = np.asarray(model(split.images[start:end], training=False), np.float32)
        true = np.take_along_axis(predicted, labels[start:end, None], axis=1)[:, 0]
        batches.append((predicted.argmax(axis=1), predicted.max(axis=1), true))
    return SplitClassification(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


@contextmanager
def _trained(config: TrialConfig, bench: Workbench) -> Iterator[tuple[Training, EpochMetrics]]:
    """Train a configuration to its end; yield the training with the metrics of the epoch that it keeps."""
    from trainables.methods.methods import begin

    training = begin(config, bench)
    try:
        while not training.done:
            training.run_epoch()
        if training.best is None:
            raise DataError("epochs: expected at least 1")
        yield training, training.best
    finally:
        training.release()


def _trained_model(training: Training, best: EpochMetrics) -> TrainedModel:
    from search.records.predictions import pack_bits

    old = training.old_task_correct("test")
    if old is None:
        return TrainedModel(best)
    accuracies = training.old_task_metrics("test")
    before, after = old
    return TrainedModel(
        best,
        (accuracies["old_accuracy_before"], accuracies["old_accuracy"]),
        (pack_bits(before), pack_bits(after)),
    )
