"""A head between two epochs, and what its next epoch needs: plain arrays, free of any graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainables.compiled.head import head_shapes
from trainables.compiled.shapes import Hyperparameters


@dataclass(frozen=True)
class HeadShape:
    """What compiled heads depend on: width of the features, of the hidden layer (0: none), classes, images a step."""

    features: int
    units: int
    classes: int
    batch_size: int

    @property
    def arrays(self) -> list[tuple[int, ...]]:
        """Shapes of kernels and biases, bottom first."""
        return head_shapes(self.features, self.units, self.classes)


@dataclass(frozen=True)
class HeadState:
    """A head and its optimizer between two epochs; ``steps`` were taken. Arrays are never changed in place."""

    weights: list[np.ndarray]
    momentum: list[np.ndarray]
    velocity: list[np.ndarray]
    steps: int
    rate: float = 0.0


@dataclass(frozen=True)
class HeadEpoch:
    """One epoch of one trial.

    ``source`` (N, C) are the activations, ``indices`` (S, B) the rows of each step, ``labels`` (N,) int32, ``rates``
    (S,) the learning rates, ``seed`` (trial, first step) makes the dropout masks.
    """

    state: HeadState
    source: np.ndarray
    indices: np.ndarray
    labels: np.ndarray
    rates: np.ndarray
    hyper: Hyperparameters
    seed: tuple[int, int]
