"""The state of a head between two epochs, and the data of its next epoch: plain arrays that belong to no graph.

Because of that, a trial can join or leave a batch of heads after every epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainables.compiled.head import head_shapes
from trainables.compiled.shapes import Hyperparameters


@dataclass(frozen=True)
class HeadShape:
    """What compiled heads depend on.

    Attributes:
        features: width C of the pooled features.
        units: width U of the hidden layer; 0 for a linear head.
        classes: number of classes K.
        batch_size: images in a step, B.
    """

    features: int
    units: int
    classes: int
    batch_size: int

    @property
    def arrays(self) -> list[tuple[int, ...]]:
        """Shapes of kernels and biases, bottom first: (C, K), (K,) or (C, U), (U,), (U, K), (K,)."""
        return head_shapes(self.features, self.units, self.classes)


@dataclass(frozen=True)
class HeadState:
    """A head and its optimizer between two epochs. The arrays are never changed in place, so states may share them.

    Attributes:
        weights: kernels and biases, bottom first, float32.
        momentum: Adam's first moments, arrays of the same shapes.
        velocity: Adam's second moments, arrays of the same shapes.
        steps: number of optimizer steps so far.
        rate: learning rate of the last step.
    """

    weights: list[np.ndarray]
    momentum: list[np.ndarray]
    velocity: list[np.ndarray]
    steps: int
    rate: float = 0.0


@dataclass(frozen=True)
class HeadEpoch:
    """One epoch of training of one trial: S steps with B images each.

    Attributes:
        state: before the epoch.
        source: (N, C) activations of all training images, float16 or float32.
        indices: (S, B) int64, the rows of each step.
        labels: (N,) int32.
        rates: (S,) float32 learning rates.
        hyper: values that are the same in all steps.
        seed: (trial, number of the first step); the dropout masks are a function of it.
    """

    state: HeadState
    source: np.ndarray
    indices: np.ndarray
    labels: np.ndarray
    rates: np.ndarray
    hyper: Hyperparameters
    seed: tuple[int, int]
