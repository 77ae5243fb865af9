"""The reference of every search: the frozen probe, a logistic regression on what the backbone knows already.

See :mod:`trainables.training.frozen_probe`. There is no gradient step. The trial consists of one epoch, in which the
probe is fitted and then evaluated like every other model. The seed has no influence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.backbones.backbone import Backbone
from trainables.batched_heads.batching import HeadBatcher
from trainables.batched_heads.program import HeadProgram
from trainables.batched_heads.state import HeadShape
from trainables.compiled.shapes import ProgramShape
from trainables.errors import UsageError
from trainables.tracing import tracing
from trainables.training.feed import DataFeed
from trainables.training.frozen_probe import ProbeChoice, choose_probe, pooled, pooled_prefix
from trainables.training.method_hooks import TrainingPlan
from trainables.training.training import Training
from trainables.training.trial_cost import TrialCost


class ProbeProgram(HeadProgram):
    """A linear head on the pooled features of a cut, evaluated by the functions that evaluate other heads.

    Args:
        backbone: below the head.
        depth: number of blocks above the cut.
        shape: of the program, with depth 0.
        batcher: evaluates the head.
    """

    def __init__(self, backbone: Backbone, depth: int, shape: ProgramShape, batcher: HeadBatcher) -> None:
        super().__init__(backbone, shape, batcher)
        self.prefix = pooled_prefix(backbone, depth)
        self._run_prefix: Any = None

    def evaluate(self, inputs: np.ndarray, labels: np.ndarray) -> tuple[float, int, np.ndarray]:
        """Evaluate images (uint8) or activations at the cut; see
        :meth:`trainables.compiled.program.Program.evaluate`.
        """
        features = self._features(inputs) if inputs.dtype == np.uint8 else pooled(inputs)
        return super().evaluate(features, labels)

    def _features(self, images: np.ndarray) -> np.ndarray:
        if self._run_prefix is None:
            with tracing():
                self._run_prefix = tf.function(
                    lambda x: tf.cast(self.prefix(tf.cast(x, tf.float32), training=False), tf.float32),
                    autograph=False,
                ).get_concrete_function(tf.TensorSpec([None, *images.shape[1:]], tf.uint8))
        return np.asarray(self._run_prefix(tf.constant(images)))


@dataclass
class ProbeFeed(DataFeed):
    """The data of the probe. A checkpoint also holds what was chosen, because the width of the head follows from it."""

    choice: ProbeChoice | None = None

    def describe(self) -> dict[str, Any]:
        """As for other trials, and the choice under ``probe``."""
        return {**super().describe(), "probe": self.choice.to_json() if self.choice else None}


class Probe(Training):
    """Fits the frozen probe in one epoch.

    The parameters ``unfreeze_depth`` and ``head_units`` are 0. With an ``augmentation_strength`` above 0, a candidate
    that sees augmented images is tried, too.
    """

    feed: ProbeFeed

    def plan(self) -> TrainingPlan:
        """Nothing trains.

        Raises:
            UsageError: the trial has blocks to train or a hidden layer.
        """
        for name in ("unfreeze_depth", "head_units"):
            if self.config.number(name) != 0:
                raise UsageError(f"{name}: expected 0 for the probe, received {self.config.params[name]!r}")
        return TrainingPlan(0, [], adapt=False)

    def _start(self) -> None:
        self._plan, self._units, self.depth = self.plan(), 0, 0
        self._acquired = False
        # Replaced once the cut is chosen.
        self.feed = self._make_feed(0, None)

    @property
    def done(self) -> bool:
        """Whether the only epoch has run."""
        return self.epoch >= 1

    def release(self) -> None:
        """Hand the functions that evaluate the head over to the next trial."""
        if self._acquired:
            self._acquired = False
            super().release()

    def cost(self) -> TrialCost:
        """Return what this trial reused and computed so far, and what was chosen."""
        choice = self.feed.choice
        return replace(super().cost(), probe=choice.describe() if choice else None)

    def restore_feed(self, described: Mapping[str, Any]) -> None:
        """Take up the cut that was chosen earlier.

        Raises:
            ValueError, KeyError, TypeError: the record is of another trial.
        """
        self._use(ProbeChoice.from_json(described["probe"]))
        self.feed.restore(described)

    def _train_and_evaluate(self) -> tuple[float, float, float]:
        """Fit the probe; return (training loss, validation loss, validation accuracy)."""
        choice, weights = choose_probe(self.bench, self.config.number("augmentation_strength"), self.account)
        self._use(choice)
        self.program.write(weights)
        return self._training_loss(), *self.evaluate("validation")

    def _training_loss(self) -> float:
        """Mean cross-entropy of the training images, on the features on which the probe was fitted."""
        labels = self.bench.task.split("train").labels.astype(np.int32)
        loss, seen = 0.0, 0
        for chunk in self.bench.activations.chunks("train", self.feed.depth, self.account):
            with self.account.timing("evaluate"):
                loss += self.program.evaluate(chunk, labels[seen : seen + len(chunk)])[0]
            seen += len(chunk)
        return loss / seen

    def _use(self, choice: ProbeChoice) -> None:
        """Prepare the evaluation at the chosen cut."""
        depth = choice.best.depth
        self.release()
        self.feed = self._make_feed(depth, choice)
        width = self.bench.activations.stages.shape(depth)[-1]
        shape = HeadShape(width, 0, len(self.bench.task.classes), self.feed.batch_size)
        # Pooled features are float32; the backbone's own ones are read as they are kept.
        dtype = self.bench.activations.dtype(0) if depth == 0 and not self.feed.exact else "float32"
        with self.account.timing("wait"):
            batcher, seconds = self.bench.acquire_heads(shape, dtype, train=False)
            self.account.charge("compile", seconds)
        self._acquired = True
        self.account.counts.add(programs_compiled=int(seconds > 0))
        self.program = ProbeProgram(self.bench.backbone, depth, self._shape(self._plan), batcher)
        zeros = [np.zeros(array, np.float32) for array in shape.arrays]
        self.program.start([], zeros)

    def _make_feed(self, depth: int, choice: ProbeChoice | None) -> ProbeFeed:
        options = {**self.feed_options, "epochs": 1, "flip": False}
        if choice is not None:
            options["strength"] = choice.best.strength
        return ProbeFeed(self.bench, depth, **options, choice=choice)
