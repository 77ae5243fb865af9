"""The baseline that transfers nothing: the same architecture from random weights, trained properly.

The baseline that learns from the source alone, and is asked about the target.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trainables.methods.source_training import SourceTraining
from trainables.training.training import Training, TrainingPlan


class SourceOnly(SourceTraining):
    """Fine-tunes on the source's images of shared classes; no image of the target trains."""

    @property
    def share(self) -> float:
        """All of a batch."""
        return 1.0

    def beside(self, epoch: int) -> Mapping[str, np.ndarray]:
        """Every image counts alike."""
        return {"weight": self.per_image(1.0, np.ones(len(self.source.rows("train"))))}


class Scratch(Training):
    """Trains every block from freshly initialised weights; BatchNorm always learns its statistics."""

    def plan(self) -> TrainingPlan:
        """All blocks, from random weights that are a function of the trial's seed."""
        backbone = self.bench.backbone
        depth = len(backbone.blocks)
        _, suffix = backbone.parts(depth)
        fresh = dict(
            zip(map(id, backbone.model.weights), backbone.fresh_weights(self.config.seed), strict=True)
        )
        weights = [fresh[id(w)] for w in suffix.weights] if suffix is not None else []
        return TrainingPlan(depth, weights, adapt=True)
