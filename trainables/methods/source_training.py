"""What the methods have in common that train on a source dataset in addition to the target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from trainables.compiled.loss import ExampleInput, LossInputs, TrainingLoss
from trainables.errors import UsageError
from trainables.methods.finetune import FineTune
from trainables.methods.unlabelled_selection import weighted_source_validation
from trainables.training.feed import DataFeed
from trainables.training.mixed_feed import MixedDataFeed
from trainables.training.source_data import SourceData


@dataclass(frozen=True)
class WeightedCrossEntropy(TrainingLoss):
    """The mean over the batch of w · cross-entropy, w being the weight of an image."""

    @property
    def example_inputs(self) -> tuple[ExampleInput, ...]:
        """``weight`` (B,): w."""
        return (ExampleInput("weight"),)

    def loss(self, inputs: LossInputs) -> tf.Tensor:
        """The weighted mean, divided by the number of images and not by the sum of the weights."""
        return tf.reduce_mean(inputs.example_inputs["weight"] * inputs.cross_entropy)


class SourceTraining(FineTune):
    """Fine-tuning on batches that mix images of the target and of the source.

    If trials may not see labels of the target, epochs are compared by
    :func:`trainables.methods.unlabelled_selection.weighted_source_validation`.
    """

    feed: MixedDataFeed

    @property
    def source(self) -> SourceData:
        """The source dataset."""
        return self.bench.source

    @property
    def share(self) -> float:
        """Share of a batch that is from the source, above 0 and at most 1."""
        return 0.5

    @property
    def training_images(self) -> int:
        """Number of images of both datasets, those of shared classes only."""
        return self.bench.task.counts["train"] + len(self.source.shared_rows("train"))

    def make_feed(self, depth: int) -> DataFeed:
        """The data of both datasets.

        Raises:
            UsageError: the head shall start from a probe, which needs labels of the target that trials may not see.
        """
        if self._head_init != "random" and self.bench.unlabelled:
            raise UsageError(
                f"head_init: expected 'random' for a target without labels, received {self._head_init!r}"
            )
        return MixedDataFeed(self.bench, depth, **self.feed_options, source=self.source, share=self.share)

    def training_loss(self) -> TrainingLoss:
        """The weighted cross-entropy."""
        return WeightedCrossEntropy()

    def evaluate(self, split: str) -> tuple[float, float]:
        """(mean cross-entropy, accuracy) on the target's ``split``, or their estimates if its labels are hidden."""
        if not self.bench.unlabelled:
            return super().evaluate(split)
        return weighted_source_validation(
            self.source, self.bench, self.predict_source("validation"), self.predict_current(split)
        )

    def predict_source(self, split: str) -> np.ndarray:
        """Return probabilities (N, classes) of all images in the source's ``split`` under the present weights."""
        activations = self.source.activations
        # An exact trial evaluates on images without rounding; kept activations are rounded.
        if self.feed.exact:
            images = self.source.split(split).images
            chunks: Iterator[np.ndarray] = (
                images[piece] for piece in activations.stages.chunk_slices(len(images))
            )
        else:
            chunks = activations.chunks(split, self.depth, self.account)
        with self.account.timing("evaluate"):
            return np.concatenate([self.predict_inputs(chunk) for chunk in chunks])

    def image_weights(self, target: float, source: np.ndarray) -> np.ndarray:
        """Return one weight (N,) float32 for each training image, the target's first.

        Args:
            target: weight of each image of the target.
            source: weights of the source's images of shared classes. Its other images get 0; they are never shown.
        """
        count = self.bench.task.counts["train"]
        weights = np.zeros(count + self.source.task.counts["train"], np.float32)
        weights[:count] = target
        weights[count + self.source.shared_rows("train")] = source
        return weights
