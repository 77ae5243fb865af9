"""Baselines: training from scratch, which transfers nothing, and training on the source alone.

``scratch`` shows what the pretrained weights are worth; ``source`` shows what the target's images are worth.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trainables.methods.source_training import SourceTraining
from trainables.training.method_hooks import TrainingPlan
from trainables.training.training import Training


class Scratch(Training):
    """Trains every block of the same architecture from random weights.

    BatchNorm always adapts: without pretrained statistics there is nothing to freeze.
    """

    def plan(self) -> TrainingPlan:
        """All blocks, from random weights that are a function of the trial's seed."""
        backbone = self.bench.backbone
        depth = len(backbone.blocks)
        _, suffix = backbone.parts(depth)
        # The suffix shares its variables with the whole model, so its weights are found by identity.
        fresh = dict(
            zip(map(id, backbone.model.weights), backbone.fresh_weights(self.config.seed), strict=True)
        )
        weights = [fresh[id(w)] for w in suffix.weights] if suffix is not None else []
        return TrainingPlan(depth, weights, adapt=True)


class SourceOnly(SourceTraining):
    """Fine-tunes on the source's images of shared classes alone, and is evaluated on the target."""

    @property
    def _head_init(self) -> object:
        """Random unless the trial says otherwise: a probe would learn from labels of the target."""
        return self.config.params.get("head_init", "random")

    @property
    def share(self) -> float:
        """1: whole batches are from the source."""
        return 1.0

    def example_inputs(self, epoch: int) -> Mapping[str, np.ndarray]:
        """``weight``: 1 for each source image of a shared class."""
        return {"weight": self.image_weights(1.0, np.ones(len(self.source.shared_rows("train"))))}
