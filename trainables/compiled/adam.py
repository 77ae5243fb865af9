"""Adam (Kingma & Ba 2015) with decoupled weight decay (Loshchilov & Hutter 2019), as one fused operation a variable.

The updates are those of ``keras.optimizers.Adam``, which uses about twenty operations for each variable. In small
networks a step is mostly the dispatch of operations, and tracing them takes as long as many steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

BETAS, EPSILON = (0.9, 0.999), 1e-7


class Adam:
    """An Adam optimizer of ``variables``, whose sizes may change between trials.

    Args:
        variables: of type ``tf.Variable``.
    """

    def __init__(self, variables: Sequence[Any]) -> None:
        self._variables = list(variables)
        self._steps = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._rate = tf.Variable(0.001, trainable=False, dtype=tf.float32)
        self._momentums, self._velocities = (
            [tf.Variable(tf.zeros_like(v), shape=v.shape, trainable=False) for v in self._variables]
            for _ in range(2)
        )

    @property
    def variables(self) -> list[Any]:
        """The number of steps, the last learning rate, and both moments of each variable."""
        moments = zip(self._momentums, self._velocities, strict=True)
        return [self._steps, self._rate, *(moment for pair in moments for moment in pair)]

    def reset(self) -> None:
        """Set steps and moments to zero; the moments get the sizes that their variables have now."""
        self._steps.assign(0)
        for variable, *moments in zip(self._variables, self._momentums, self._velocities, strict=True):
            for moment in moments:
                moment.assign(np.zeros(variable.numpy().shape, np.float32))

    def apply(self, gradients: Sequence[Any], rates: Any, decay: Any = None) -> None:
        """Take one step; inside a graph.

        Args:
            gradients: one for each variable.
            rates: a list with the learning rate of each variable, or one for all.
            decay: kernels shrink by rate · decay of their values (biases and scales do not); None for no decay.
        """
        if not isinstance(rates, list):
            rates = [rates] * len(self._variables)
        # Has no effect on later steps. A checkpoint stores it after the step count, as those of Keras do.
        self._rate.assign(rates[-1])
        count = tf.cast(self._steps.assign_add(1), tf.float32)
        powers = [tf.pow(beta, count) for beta in BETAS]
        if decay is not None:
            kernels = [(v, r) for v, r in zip(self._variables, rates, strict=True) if len(v.shape) > 1]
            tf.cond(decay > 0.0, lambda: _shrink(kernels, decay), tf.no_op)
        everything = zip(self._variables, self._momentums, self._velocities, gradients, rates, strict=True)
        # The kernel corrects the bias of the moments itself, from the powers of the betas.
        for variable, momentum, velocity, gradient, rate in everything:
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle, m=momentum.handle, v=velocity.handle, grad=gradient,
                beta1_power=powers[0], beta2_power=powers[1], lr=rate,
                beta1=BETAS[0], beta2=BETAS[1], epsilon=EPSILON,
            )  # fmt: skip


def _shrink(kernels: Sequence[tuple[Any, Any]], decay: Any) -> Any:
    return tf.group(*(kernel.assign_sub(kernel * (rate * decay)) for kernel, rate in kernels))
