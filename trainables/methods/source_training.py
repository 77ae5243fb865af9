"""What all methods share that train on a source dataset beside the target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from trainables.compiled.objective import ExampleInput, LossInputs, TrainingLoss
from trainables.errors import UsageError
from trainables.methods.finetune import FineTune
from trainables.methods.unlabelled_selection import weighted_source_validation
from trainables.training.feed import DataFeed
from trainables.training.mixed_feed import MixedDataFeed
from trainables.training.source_data import SourceData


@dataclass(frozen=True)
class WeightedCrossEntropy(TrainingLoss):
    """The mean of w · cross-entropy; w is 1 for an image like any other."""

    @property
    def extras(self) -> tuple[ExampleInput, ...]:
        """``weight``, one number an image."""
        return (ExampleInput("weight"),)

    def loss(self, step: LossInputs) -> tf.Tensor:
        """Over all images of the batch."""
        return tf.reduce_mean(step.extras["weight"] * step.cross_entropy)


class SourceTraining(FineTune):
    """Fine-tuning on batches of target and source.

    Where trials may see no labels of the target, epochs are judged by
    :func:`trainables.methods.unlabelled_selection.weighted_source_validation`.
    """

    feed: MixedDataFeed
    needs_labels = False

    @property
    def source(self) -> SourceData:
        """The source dataset."""
        return self.bench.source

    @property
    def share(self) -> float:
        """Of the source in a batch."""
        return 0.5

    @property
    def training_images(self) -> int:
        """Of both datasets."""
        return self.bench.task.counts["train"] + len(self.source.rows("train"))

    def make_feed(self, depth: int) -> DataFeed:
        """Of both datasets."""
        if self._head_init != "random" and self.bench.unlabelled:
            raise UsageError(
                f"head_init: expected 'random' for a target without labels, received {self._head_init!r}"
            )
        return MixedDataFeed(self.bench, depth, **self.seeing, source=self.source, share=self.share)

    def objective(self) -> TrainingLoss:
        """The weighted cross-entropy."""
        return WeightedCrossEntropy()

    def evaluate(self, split: str) -> tuple[float, float]:
        """(mean cross-entropy, accuracy) on the target's ``split``, or what stands for them where it has no labels."""
        if not self.bench.unlabelled:
            return super().evaluate(split)
        return weighted_source_validation(
            self.source, self.bench, self.answers_to_source("validation"), self.answers(split)
        )

    def answers_to_source(self, split: str) -> np.ndarray:
        """Probabilities (N, classes) of a split of the source with the present weights."""
        activations = self.source.activations
        if self.feed.exact:
            images = self.source.split(split).images
            chunks: Iterator[np.ndarray] = (images[piece] for piece in activations.stages.chunk_slices(len(images)))
        else:
            chunks = activations.chunks(split, self.depth, self.account)
        with self.account.timing("evaluate"):
            return np.concatenate([self.probabilities(chunk) for chunk in chunks])

    def per_image(self, target: float, source: np.ndarray) -> np.ndarray:
        """(N,) float32: ``target`` for each image of the target, then ``source`` for those of shared classes, or 0."""
        both = np.zeros(self.bench.task.counts["train"] + self.source.task.counts["train"], np.float32)
        both[: self.bench.task.counts["train"]] = target
        both[self.bench.task.counts["train"] + self.source.rows("train")] = source
        return both
