"""The data types that a compiled epoch takes: what its graph depends on, its batches, and its hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from trainables.compiled.loss import TrainingLoss

AUGMENTED = "augmented"
"""The kind of inputs that are images (uint8) and are augmented before the frozen prefix; other kinds are dtypes."""


@dataclass(frozen=True)
class ProgramShape:
    """Everything that the graph of a compiled epoch depends on; trials of equal shapes share one program.

    Attributes:
        depth: how many blocks train, counted from the top.
        classes: number of classes K.
        batch_size: images in a step, B.
        exact: run the frozen prefix without rounding. Other programs round at each cut, as kept activations are
            (:mod:`trainables.activations.stages`), so that a trial gets the same numbers with and without the cache.
        adapt: BatchNorm of the trained blocks uses and updates the statistics of the batch; otherwise it stays as
            pretrained.
        momentum: of these statistics; a constant of the graph.
        precision: Keras dtype policy of the backbone's layers, such as ``mixed_float16``.
        jit: XLA compiles the training step, except for the frozen prefix, which must make the same numbers either way
            (:mod:`trainables.numerics`).
        head_units: width of the head's hidden layer (0: linear) with ``jit``, because XLA needs to know all sizes;
            None otherwise, and one program serves heads of all widths.
        loss: what a step minimises; None for the mean cross-entropy of the labels.
        gradual: the blocks begin to train one by one (:mod:`trainables.compiled.suffix_training`).
        penalised: a quadratic penalty holds the blocks back (:mod:`trainables.compiled.quadratic_penalty`).
    """

    depth: int
    classes: int
    batch_size: int
    exact: bool
    adapt: bool
    momentum: float
    precision: str = "float32"
    jit: bool = False
    head_units: int | None = None
    loss: TrainingLoss | None = None
    gradual: bool = False
    penalised: bool = False


@dataclass(frozen=True)
class Batches:
    """The data of S steps with B images each.

    Attributes:
        inputs: (S, B, …) images (uint8) or activations at the cut (float16 or float32).
        labels: (S, B) int32; -1 for an image without a label.
        draws: (S, B, DRAWS) float32, the random numbers by which images are augmented; None for inputs as they are.
        example_inputs: (S, B, …) by the names that the loss declares.
    """

    inputs: np.ndarray
    labels: np.ndarray
    draws: np.ndarray | None = None
    example_inputs: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters that are arguments of the compiled epoch, so that one program serves all their values.

    Attributes:
        weight_decay: decoupled decay of kernels, as a share of the learning rate.
        dropout: rate in [0, 1) at the inputs of the head's last layer.
        label_smoothing: share in [0, 1) of the target's probability that is spread over all classes.
        strength: of augmentation, in [0, 1].
        flip: 1 to mirror images horizontally at random, else 0.
    """

    weight_decay: float = 0.0
    dropout: float = 0.0
    label_smoothing: float = 0.0
    strength: float = 0.0
    flip: float = 0.0

    def as_array(self) -> np.ndarray:
        """Return the values as (5,) float32 in the order of the fields; compiled functions index them so."""
        return np.array([*vars(self).values()], np.float32)
