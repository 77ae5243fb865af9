"""What a trial of the method ``probe`` evaluates its fitted head with: a program and a feed for any cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.backbones.backbone import Backbone
from trainables.batched_heads.batching import HeadBatcher
from trainables.batched_heads.program import HeadProgram
from trainables.compiled.shapes import ProgramShape
from trainables.tracing import tracing
from trainables.training.feed import DataFeed
from trainables.training.probes.frozen_probe import ProbeChoice, pooled, pooled_prefix


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
