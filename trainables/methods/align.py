"""Feature transfer: features are trained so that source and target look alike to the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.compiled.objective import ExampleInput, LossInputs, TrainingLoss
from trainables.errors import UsageError
from trainables.methods.domain_losses import (
    DISCRIMINATOR_SHAPES,
    adversarial_loss,
    coral,
    initial_discriminator,
    mmd,
)
from trainables.methods.source_training import SourceTraining
from trainables.training.training import TrainingPlan

ALIGNMENTS = ("coral", "mmd", "dann")
ALIGNMENT_SCHEDULES = ("constant", "ramp")
ALIGNMENT_LAYERS = ("features", "hidden")

_STEEPNESS = 10.0


@dataclass(frozen=True)
class AlignmentLoss(TrainingLoss):
    """Cross-entropy of the labelled images, and λ times how far apart the domains are.

    ``targets`` rows of a batch, the first ones, are the target's. ``layer`` is where the domains are compared:
    the backbone's ``features``, or the ``hidden`` layer of the head.
    """

    alignment: str
    layer: str
    targets: int

    @property
    def extras(self) -> tuple[ExampleInput, ...]:
        """``weight``: 1 for an image with a label, else 0."""
        return (ExampleInput("weight"),)

    @property
    def numbers(self) -> tuple[str, ...]:
        """λ."""
        return ("alignment_weight",)

    def variable_shapes(self, features: int, classes: int) -> Sequence[tuple[int | None, ...]]:
        """A discriminator, if there is an adversary."""
        return DISCRIMINATOR_SHAPES if self.alignment == "dann" else ()

    def initial(self, features: int, units: int, classes: int, seed: int) -> list[np.ndarray]:
        """Its first weights."""
        width = units or features if self.layer == "hidden" else features
        return initial_discriminator(width, seed) if self.alignment == "dann" else []

    def loss(self, step: LossInputs) -> Any:
        """Classification and alignment; of an adversary the discriminator's loss, whose gradient λ scales."""
        weight, strength = step.extras["weight"], step.numbers["alignment_weight"]
        labelled = tf.maximum(tf.reduce_sum(weight), 1.0)
        classification = tf.reduce_sum(weight * step.cross_entropy) / labelled
        x = step.hidden if self.layer == "hidden" else step.features
        target, source = x[: self.targets], x[self.targets :]
        if self.alignment == "dann":
            return classification + adversarial_loss(source, target, step.variables, strength)
        distance = coral if self.alignment == "coral" else mmd
        return classification + strength * distance(source, target)


class Align(SourceTraining):
    """Fine-tunes on batches of which half is the source's, with an ``alignment`` of both halves.

    ``alignment_weight`` is λ; its ``alignment_schedule`` is constant, or a ramp from 0 to λ as in DANN. Where only the
    head trains (depth 0) features can't change: its hidden layer is aligned, and a linear head has nothing to align.
    """

    def plan(self) -> TrainingPlan:
        """As in fine-tuning."""
        for name, word, known in (
            ("alignment", self.alignment, ALIGNMENTS),
            ("alignment_schedule", self._schedule, ALIGNMENT_SCHEDULES),
            ("alignment_layer", self._layer, ALIGNMENT_LAYERS),
        ):
            if word not in known:
                raise UsageError(f"{name}: expected one of {', '.join(known)}, received {word!r}")
        return super().plan()

    @property
    def alignment(self) -> str:
        """One of ALIGNMENTS."""
        return str(self.config.params.get("alignment", "mmd"))

    @property
    def _schedule(self) -> str:
        return str(self.config.params.get("alignment_schedule", "constant"))

    @property
    def _layer(self) -> str:
        return str(self.config.params.get("alignment_layer", "features"))

    def objective(self) -> TrainingLoss:
        """Classification and alignment."""
        layer = self._layer if self.depth else "hidden"
        return AlignmentLoss(self.alignment, layer, self.feed.batch_size - self.feed.source_rows)

    def beside(self, epoch: int) -> Mapping[str, np.ndarray]:
        """Which images have labels."""
        own = 0.0 if self.bench.unlabelled else 1.0
        return {"weight": self.per_image(own, np.ones(len(self.source.rows("train"))))}

    def numbers(self, epoch: int) -> np.ndarray:
        """λ in each step (steps, 1)."""
        most, steps = self.config.number("alignment_weight", 1.0), self.feed.steps
        if self._schedule == "constant":
            return np.full((steps, 1), most, np.float32)
        first = (epoch - 1) * steps
        return alignment_ramp(most, np.arange(first, first + steps), self.config.epochs * steps)[:, None]


def alignment_ramp(most: float, step: np.ndarray, steps: int) -> np.ndarray:
    """λ · (2 / (1 + e^(−10 p)) − 1), p the share of all ``steps`` that are done (Ganin et al. 2016, section 5.2.2)."""
    progress = step / max(steps, 1)
    return (most * (2.0 / (1.0 + np.exp(-_STEEPNESS * progress)) - 1.0)).astype(np.float32)
