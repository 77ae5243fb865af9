"""Scales the loss in float16, so that small gradients do not become zero (Micikevicius et al. 2018, section 3.2).

Gradients below 6e-8 are zero in float16. So the loss is multiplied by a power of two before it is differentiated, and
the gradients are divided by it afterwards. A step whose gradients overflow is skipped and halves the scale;
GROWTH_STEPS good steps in a row double it. ``keras.optimizers.LossScaleOptimizer`` does the same for one optimizer, but
a program has several, which must skip a step together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

INITIAL_SCALE = 2.0**15
GROWTH_STEPS = 2000
"""Both are the defaults of ``keras.optimizers.LossScaleOptimizer``."""


class LossScale:
    """The scale of one program, and the number of good steps since it last changed."""

    def __init__(self) -> None:
        self._scale = tf.Variable(INITIAL_SCALE, trainable=False, dtype=tf.float32)
        self._good = tf.Variable(0, trainable=False, dtype=tf.int32)

    @property
    def variables(self) -> list[Any]:
        """What a checkpoint needs: the scale, and the number of good steps."""
        return [self._scale, self._good]

    def reset(self) -> None:
        """Return to the initial scale."""
        self._scale.assign(INITIAL_SCALE)
        self._good.assign(0)

    def scaled(self, loss: Any) -> Any:
        """Return what to differentiate in place of ``loss``."""
        return loss * self._scale

    def apply(self, gradients: list[Any], update: Callable[[list[Any]], None]) -> None:
        """Call ``update`` with the unscaled gradients, unless one of them is not finite; inside a graph."""
        true = [gradient / self._scale for gradient in gradients]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in true])
        tf.cond(finite, lambda: self._taken(true, update), self._skipped)

    def _taken(self, gradients: list[Any], update: Callable[[list[Any]], None]) -> Any:
        update(gradients)
        grown = self._good + 1 >= GROWTH_STEPS
        self._scale.assign(tf.where(grown, self._scale * 2.0, self._scale))
        # tf.cond needs branches that return the same kind of value; nobody reads it.
        return self._good.assign(tf.where(grown, 0, self._good + 1))

    def _skipped(self) -> Any:
        # Below 1 the scale would make gradients smaller. Overflows that remain are a divergence of the trial.
        self._scale.assign(tf.maximum(self._scale * 0.5, np.float32(1.0)))
        return self._good.assign(0)
