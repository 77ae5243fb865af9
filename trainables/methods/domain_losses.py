"""Domain-adversarial training: features that a discriminator can't tell the domain by (Ganin et al. 2016, DANN).

One backward pass trains both sides: the discriminator learns to tell source from target, and its gradient is turned
around and scaled by λ on its way into the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.compiled.head import initial_weights

UNITS = 64
"""Width of the discriminator's hidden layer."""

SHAPES: tuple[tuple[int | None, ...], ...] = ((None, UNITS), (UNITS,), (UNITS, 1), (1,))

_KEY = 0xD15C


def first_discriminator(width: int, seed: int) -> list[np.ndarray]:
    """Kernels and biases of a discriminator of ``width`` inputs."""
    return initial_weights([(width, UNITS), (UNITS,), (UNITS, 1), (1,)], seed ^ _KEY)


def reversed_gradient(x: Any, strength: Any) -> Any:
    """``x``; its gradient is multiplied by −``strength``."""

    def same(tensor: Any) -> Any:
        return tf.identity(tensor), lambda upstream: -strength * upstream

    return tf.custom_gradient(same)(x)


def confusion(source: Any, target: Any, variables: Sequence[Any], strength: Any) -> Any:
    """The discriminator's mean cross-entropy, each domain for a half; λ is ``strength``, a scalar."""
    x = reversed_gradient(tf.concat([source, target], axis=0), strength)
    kernel, bias, last_kernel, last_bias = variables
    hidden = tf.nn.relu(tf.matmul(x, kernel) + bias)
    logits = (tf.matmul(hidden, last_kernel) + last_bias)[:, 0]
    n = tf.shape(source)[0]
    return 0.5 * (tf.reduce_mean(tf.nn.softplus(-logits[:n])) + tf.reduce_mean(tf.nn.softplus(logits[n:])))
