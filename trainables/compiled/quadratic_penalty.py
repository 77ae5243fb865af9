"""Pulls trained weights towards reference values with a quadratic penalty.

    (s/2) · Σᵢ Fᵢ (wᵢ − aᵢ)²

With the pretrained weights as references a and F = 1 it is L2-SP (Li et al. 2018, https://arxiv.org/abs/1802.01483,
equation 4). With the Fisher information as F it is the penalty of elastic weight consolidation (Kirkpatrick et al.
2017, https://arxiv.org/abs/1612.00796, equation 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class QuadraticPenalty:
    """The penalty of one trial.

    Attributes:
        strength: s, at least 0.
        anchors: a, one array for each of the blocks' weights, in their order. Those of weights that no gradient trains
            (statistics) are ignored.
        importance: F, arrays of the same shapes; all ones if None.
    """

    strength: float
    anchors: Sequence[np.ndarray]
    importance: Sequence[np.ndarray] | None = None


class PenaltyState:
    """The penalty of ``variables`` inside a graph.

    Strength, anchors and importance are variables, so that no trial's values become constants of the compiled program.
    """

    def __init__(self, variables: Sequence[Any]) -> None:
        self._variables = list(variables)
        self._anchors, self._importance = (
            [tf.Variable(tf.zeros_like(v), trainable=False) for v in self._variables] for _ in range(2)
        )
        self._strength = tf.Variable(0.0, trainable=False)

    @property
    def variables(self) -> list[Any]:
        """All variables that take memory in proportion to the weights."""
        return [*self._anchors, *self._importance]

    def assign(
        self, strength: float, anchors: Sequence[np.ndarray], importance: Sequence[np.ndarray] | None = None
    ) -> None:
        """Set s, a and F (ones if None), one array for each of the variables."""
        self._strength.assign(strength)
        weights = [np.ones(a.shape, np.float32) for a in anchors] if importance is None else importance
        for kept, new in ((self._anchors, anchors), (self._importance, weights)):
            for variable, array in zip(kept, new, strict=True):
                variable.assign(array)

    def add_to(self, gradients: Sequence[Any]) -> list[Any]:
        """Return ``gradients``, one for each of the variables, plus s · F (w − a), the gradient of the penalty.

        The penalty's gradient is written down instead of differentiated: it costs three operations a variable and is
        not multiplied by the scale of the loss in mixed precision.
        """
        terms = zip(gradients, self._variables, self._anchors, self._importance, strict=True)
        return [g + self._strength * f * (w - a) for g, w, a, f in terms]
