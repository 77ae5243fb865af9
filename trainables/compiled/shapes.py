"""Shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from trainables.compiled.objective import TrainingLoss

AUGMENTED = "distorted"
"""The type of inputs that are images (uint8) and are distorted before the frozen prefix."""


@dataclass(frozen=True)
class ProgramShape:
    """What a compiled epoch depends on.

    An ``exact`` program runs the frozen prefix as it is; others round at each cut, as kept activations are
    (:mod:`trainables.activations.stages`). ``adapt`` lets BatchNorm of the unfrozen blocks use and update
    batch statistics;
    otherwise it stays as pretrained. ``momentum`` of those statistics is part of the graph. ``precision`` is the dtype
    policy of the backbone's layers; with ``jit`` XLA compiles a training step, but for the frozen prefix, which makes
    the same numbers either way (:mod:`trainables.numerics`). XLA knows all sizes: then, and only then,
    ``head_units`` is given. Without an ``objective`` a step minimises the mean cross-entropy of its labels.
    ``gradual`` and ``pulled`` say how the unfrozen blocks train (:mod:`trainables.compiled.suffix_training`).
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
    objective: TrainingLoss | None = None
    gradual: bool = False
    pulled: bool = False


@dataclass(frozen=True)
class Batches:
    """Some steps' worth of data: inputs (S, B, …), labels (S, B) int32, draws (S, B, DRAWS) float32.

    ``inputs`` are images (uint8) or activations at the cut (float16, float32); images with ``draws`` are distorted.
    ``extras`` (S, B, …) are what the objective asks for, by name.
    """

    inputs: np.ndarray
    labels: np.ndarray
    draws: np.ndarray | None = None
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters that are arguments of the compiled epoch."""

    weight_decay: float = 0.0
    dropout: float = 0.0
    label_smoothing: float = 0.0
    strength: float = 0.0
    flip: float = 0.0

    def as_array(self) -> np.ndarray:
        """(5,) float32, in the order of the fields."""
        return np.array([*vars(self).values()], np.float32)
