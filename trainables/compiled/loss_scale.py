"""Dynamic scaling of the loss (Micikevicius et al. 2018, Mixed Precision Training, section 3.2).

Gradients below 6e-8 are zero in float16. The loss is multiplied by a power of two before it is differentiated, the
gradients divided by it after. A step whose gradients overflow is skipped and halves the scale; so many good ones in a
row double it. Start and growth are those of ``keras.optimizers.LossScaleOptimizer``, which wraps one optimizer; a
program has two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

INITIAL_SCALE = 2.0**15
GROWTH_STEPS = 2000


class LossScale:
    """The scale of one program, and how many good steps it has seen."""

    def __init__(self) -> None:
        self._scale = tf.Variable(INITIAL_SCALE, trainable=False, dtype=tf.float32)
        self._good = tf.Variable(0, trainable=False, dtype=tf.int32)

    @property
    def variables(self) -> list[Any]:
        """What a checkpoint needs."""
        return [self._scale, self._good]

    def reset(self) -> None:
        """Begin anew."""
        self._scale.assign(INITIAL_SCALE)
        self._good.assign(0)

    def scaled(self, loss: Any) -> Any:
        """What to differentiate in place of ``loss``."""
        return loss * self._scale

    def apply(self, gradients: list[Any], update: Callable[[list[Any]], None]) -> None:
        """Call ``update`` with the true gradients, unless one of them is not finite; inside a graph."""
        true = [gradient / self._scale for gradient in gradients]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in true])
        tf.cond(finite, lambda: self._taken(true, update), self._skipped)

    def _taken(self, gradients: list[Any], update: Callable[[list[Any]], None]) -> Any:
        update(gradients)
        grown = self._good + 1 >= GROWTH_STEPS
        self._scale.assign(tf.where(grown, self._scale * 2.0, self._scale))
        return self._good.assign(tf.where(grown, 0, self._good + 1))

    def _skipped(self) -> Any:
        self._scale.assign(tf.maximum(self._scale * 0.5, np.float32(1.0)))
        return self._good.assign(0)
