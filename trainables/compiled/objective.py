"""What a training step minimises, where that is more than the cross-entropy of the labels.

An :class:`TrainingLoss` is part of a compiled epoch's :class:`~trainables.compiled.program.Shape`: two trials
with equal ones share
a program. It says what a step takes beside images and labels (arrays with one row an image, and numbers such as a
weight in the loss, which are arguments and never constants of the graph), which variables it trains beside the model
(the discriminator of an adversary), and the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ExampleInput:
    """An array that a step takes beside its images: (B, *shape), one row an image."""

    name: str
    shape: tuple[int, ...] = ()
    dtype: str = "float32"


@dataclass(frozen=True)
class LossInputs:
    """One step inside the graph: tensors, float32 if nothing else is said.

    Attributes:
        features: (B, C) of the pooled backbone.
        hidden: (B, U) inputs of the head's last layer, before dropout; the features where the head is linear.
        scores: (B, K) before softmax.
        labels: (B,) int32; -1 has no class.
        targets: (B, K) smoothed probabilities of the labels.
        cross_entropy: (B,) of ``scores`` with ``targets``.
        extras: by name, (B, …).
        numbers: by name, scalars.
        variables: of the objective.
    """

    features: Any
    hidden: Any
    scores: Any
    labels: Any
    targets: Any
    cross_entropy: Any
    extras: Mapping[str, Any]
    numbers: Mapping[str, Any]
    variables: Sequence[Any]


@dataclass(frozen=True)
class TrainingLoss:
    """A loss and what it needs. Subclasses are frozen dataclasses too: equal ones must make the same graph."""

    @property
    def extras(self) -> tuple[ExampleInput, ...]:
        """Arrays that :attr:`trainables.compiled.program.Batches.extras` must hold."""
        return ()

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the numbers that each step is given."""
        return ()

    def variable_shapes(self, features: int, classes: int) -> Sequence[tuple[int | None, ...]]:
        """Shapes of the variables that train beside the model; None is a size that may differ between trials."""
        return ()

    def initial(self, features: int, units: int, classes: int, seed: int) -> list[np.ndarray]:
        """First values of these variables, float32, for a head of ``units`` (0: linear)."""
        return []

    def loss(self, step: LossInputs) -> Any:
        """The scalar that a step minimises."""
        raise TypeError(f"{type(self).__name__} must say what it minimises")
