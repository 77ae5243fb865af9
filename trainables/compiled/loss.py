"""Describes the loss that a training step minimises, if it is more than the cross-entropy of the labels.

A :class:`TrainingLoss` declares what its compiled step needs: arrays with one row for each image, scalars such as a
weight in the loss, and variables that are trained along with the model, such as an adversary's discriminator. It is
part of the :class:`~trainables.compiled.shapes.ProgramShape`, so two trials with equal losses share one compiled
program. That is why arrays and scalars are arguments of the step and never constants of its graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ExampleInput:
    """Declares an array that a step takes in addition to images and labels.

    Attributes:
        name: by which the array is passed.
        shape: of one image's row; the step gets (B, *shape).
        dtype: NumPy name of the type.
    """

    name: str
    shape: tuple[int, ...] = ()
    dtype: str = "float32"


@dataclass(frozen=True)
class LossInputs:
    """The tensors of one step inside the graph, float32 unless noted. B is the batch size, K the number of classes.

    Attributes:
        features: (B, C) of the pooled backbone.
        hidden: (B, U) inputs of the head's last layer before dropout; the features if the head is linear.
        scores: (B, K) before softmax.
        labels: (B,) int32; -1 for an image without a label.
        targets: (B, K) smoothed probabilities of the labels.
        cross_entropy: (B,) of ``scores`` with ``targets``.
        example_inputs: (B, …) by the names of :attr:`TrainingLoss.example_inputs`.
        scalars: by the names of :attr:`TrainingLoss.scalars`.
        variables: those of the loss, in the order of :meth:`TrainingLoss.variable_shapes`.
    """

    features: Any
    hidden: Any
    scores: Any
    labels: Any
    targets: Any
    cross_entropy: Any
    example_inputs: Mapping[str, Any]
    scalars: Mapping[str, Any]
    variables: Sequence[Any]


@dataclass(frozen=True)
class TrainingLoss:
    """A loss and what it needs.

    Subclasses are frozen dataclasses, too. Two equal losses must build the same graph, because they share one program.
    """

    @property
    def example_inputs(self) -> tuple[ExampleInput, ...]:
        """Arrays that :attr:`trainables.compiled.shapes.Batches.example_inputs` must hold."""
        return ()

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of the numbers that each step is given."""
        return ()

    def variable_shapes(self, features: int, classes: int) -> Sequence[tuple[int | None, ...]]:
        """Return the shapes of the variables that are trained along; None is a size that may differ between trials."""
        return ()

    def initial_variables(self, features: int, units: int, classes: int, seed: int) -> list[np.ndarray]:
        """Return first values of these variables, float32, for a head with ``units`` hidden ones (0: linear)."""
        return []

    def loss(self, inputs: LossInputs) -> Any:
        """Return the scalar that a step minimises."""
        raise TypeError(f"{type(self).__name__} must define loss()")
