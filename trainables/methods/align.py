"""Feature transfer: trains features whose distribution is the same for source and target.

A classifier that is trained on labelled source images then also fits the target. The loss is

    CE + λ · d(x_S, x_T)

with the mean cross-entropy CE of the labelled images, and a distance d between the features x of both domains in a
batch: ``coral``, ``mmd`` or ``dann`` (:mod:`trainables.methods.domain_losses`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.compiled.loss import ExampleInput, LossInputs, TrainingLoss
from trainables.errors import UsageError
from trainables.methods.domain_losses import (
    DISCRIMINATOR_SHAPES,
    adversarial_loss,
    coral,
    initial_discriminator,
    mmd,
)
from trainables.methods.parameter_values import ALIGNMENT_LAYERS, ALIGNMENT_SCHEDULES, ALIGNMENTS
from trainables.methods.source_training import SourceTraining
from trainables.training.method_hooks import TrainingPlan

_STEEPNESS = 10.0
"""γ in :func:`alignment_ramp`, as in the paper."""


@dataclass(frozen=True)
class AlignmentLoss(TrainingLoss):
    """The mean cross-entropy of the labelled images plus λ times the distance between the domains.

    Attributes:
        alignment: one of :data:`ALIGNMENTS`.
        layer: one of :data:`ALIGNMENT_LAYERS`.
        targets: how many of a batch's images are the target's; they come first.
    """

    alignment: str
    layer: str
    targets: int

    @property
    def example_inputs(self) -> tuple[ExampleInput, ...]:
        """``weight`` (B,): 1 for an image with a label, else 0."""
        return (ExampleInput("weight"),)

    @property
    def scalars(self) -> tuple[str, ...]:
        """``alignment_weight``, λ."""
        return ("alignment_weight",)

    def variable_shapes(self, features: int, classes: int) -> Sequence[tuple[int | None, ...]]:
        """Return the shapes of the discriminator for ``dann``; none otherwise."""
        return DISCRIMINATOR_SHAPES if self.alignment == "dann" else ()

    def initial_variables(self, features: int, units: int, classes: int, seed: int) -> list[np.ndarray]:
        """Return the first weights of the discriminator."""
        width = units or features if self.layer == "hidden" else features
        return initial_discriminator(width, seed) if self.alignment == "dann" else []

    def loss(self, inputs: LossInputs) -> Any:
        """Return CE + λ · d.

        For ``dann`` the loss of the discriminator is added instead, and λ scales its reversed gradient.
        """
        weight, strength = inputs.example_inputs["weight"], inputs.scalars["alignment_weight"]
        # Without labelled images in a batch the mean is 0, not 0 / 0.
        labelled = tf.maximum(tf.reduce_sum(weight), 1.0)
        classification = tf.reduce_sum(weight * inputs.cross_entropy) / labelled
        x = inputs.hidden if self.layer == "hidden" else inputs.features
        # The order of the rows is that of MixedDataFeed.
        target, source = x[: self.targets], x[self.targets :]
        if self.alignment == "dann":
            return classification + adversarial_loss(source, target, inputs.variables, strength)
        distance = coral if self.alignment == "coral" else mmd
        return classification + strength * distance(source, target)


class Align(SourceTraining):
    """Fine-tunes on batches of which half is the source's, and aligns the features of both halves.

    Parameters of the trial: ``alignment`` (default ``mmd``), ``alignment_weight`` λ (1), ``alignment_schedule``
    (``constant``) and ``alignment_layer`` (``features``). At depth 0 the features are fixed, so the hidden layer of the
    head is aligned; a linear head then has nothing to align.
    """

    def plan(self) -> TrainingPlan:
        """Return the plan of fine-tuning, after checking the alignment parameters."""
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
        """The distance between the domains, one of :data:`ALIGNMENTS`."""
        return str(self.config.params.get("alignment", "mmd"))

    @property
    def _schedule(self) -> str:
        return str(self.config.params.get("alignment_schedule", "constant"))

    @property
    def _layer(self) -> str:
        return str(self.config.params.get("alignment_layer", "features"))

    def training_loss(self) -> TrainingLoss:
        """Return the loss of classification and alignment."""
        layer = self._layer if self.depth else "hidden"
        return AlignmentLoss(self.alignment, layer, self.feed.batch_size - self.feed.source_rows)

    def example_inputs(self, epoch: int) -> Mapping[str, np.ndarray]:
        """Return ``weight``: 1 for each image with a label, 0 for target images whose labels are hidden."""
        own = 0.0 if self.bench.unlabelled else 1.0
        return {"weight": self.image_weights(own, np.ones(len(self.source.shared_rows("train"))))}

    def loss_scalars(self, epoch: int) -> np.ndarray:
        """Return λ in each step of ``epoch`` (from 1): (steps, 1) float32."""
        final_weight, steps = self.config.number("alignment_weight", 1.0), self.feed.steps
        if self._schedule == "constant":
            return np.full((steps, 1), final_weight, np.float32)
        first = (epoch - 1) * steps
        return alignment_ramp(final_weight, np.arange(first, first + steps), self.config.epochs * steps)[
            :, None
        ]


def alignment_ramp(final_weight: float, step: np.ndarray, steps: int) -> np.ndarray:
    """Return λ · (2 / (1 + e^(−γ p)) − 1), the schedule of DANN (Ganin et al. 2016, section 5.2.2).

    A discriminator that has not learnt yet gives noisy gradients, so its influence begins at 0.

    Args:
        final_weight: λ at the end.
        step: (n,) numbers of steps, from 0; p = step / steps.
        steps: number of steps of the whole training.

    Returns:
        (n,) float32.
    """
    progress = step / max(steps, 1)
    return (final_weight * (2.0 / (1.0 + np.exp(-_STEEPNESS * progress)) - 1.0)).astype(np.float32)
