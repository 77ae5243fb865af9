"""A pull of trained weights towards where they should stay.

    (s/2) · Σᵢ Fᵢ (wᵢ − aᵢ)²

With the pretrained weights as anchors a and F = 1 it is L2-SP (Li et al. 2018, https://arxiv.org/abs/1802.01483,
equation 4); with Fisher information as F, the penalty of elastic weight consolidation (Kirkpatrick et al. 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class WeightPull:
    """What pulls a trial's unfrozen blocks.

    ``strength`` is s. ``anchors`` and ``importance`` (all ones if not given) are arrays in the order of the blocks'
    weights; those of weights that no gradient trains (statistics) are ignored.
    """

    strength: float
    anchors: Sequence[np.ndarray]
    importance: Sequence[np.ndarray] | None = None


class L2SPPenalty:
    """The pull of ``variables`` inside a graph; its numbers are variables, so that no trial's are compiled in."""

    def __init__(self, variables: Sequence[Any]) -> None:
        self._variables = list(variables)
        self._anchors, self._importance = (
            [tf.Variable(tf.zeros_like(v), trainable=False) for v in self._variables] for _ in range(2)
        )
        self._strength = tf.Variable(0.0, trainable=False)

    @property
    def variables(self) -> list[Any]:
        """Everything that takes memory."""
        return [*self._anchors, *self._importance]

    def assign(
        self, strength: float, anchors: Sequence[np.ndarray], importance: Sequence[np.ndarray] | None = None
    ) -> None:
        """Pull towards ``anchors`` from now on, one array a variable; ``importance`` is one where it is not given."""
        self._strength.assign(strength)
        weights = [np.ones(a.shape, np.float32) for a in anchors] if importance is None else importance
        for kept, new in ((self._anchors, anchors), (self._importance, weights)):
            for variable, array in zip(kept, new, strict=True):
                variable.assign(array)

    def added(self, gradients: Sequence[Any]) -> list[Any]:
        """``gradients``, one a variable, and those of the pull."""
        everything = zip(gradients, self._variables, self._anchors, self._importance, strict=True)
        return [g + self._strength * f * (w - a) for g, w, a, f in everything]
