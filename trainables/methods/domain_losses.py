"""Domain-adversarial training: features that a discriminator can't tell the domain by (Ganin et al. 2016, DANN).

One backward pass trains both sides: the discriminator learns to tell source from target, and its gradient is turned
around and scaled by λ on its way into the network.

How far apart the features of two samples are, as losses inside a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.compiled.head import initial_weights

MMD_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths of the mixture, in mean squared distances (Long et al. 2015, Learning transferable features)."""

_LEAST = 1e-12


def coral(source: Any, target: Any) -> Any:
    """‖C_S − C_T‖²_F / (4 d²) of the covariances of (n_S, d) and (n_T, d) (Sun & Saenko 2016, Deep CORAL)."""
    width = tf.cast(tf.shape(source)[1], tf.float32)
    return tf.reduce_sum(tf.square(_covariance(source) - _covariance(target))) / (4.0 * tf.square(width))


def mmd(source: Any, target: Any) -> Any:
    """Squared maximum mean discrepancy of (n_S, d) and (n_T, d) under a mean of Gaussian kernels (Gretton et al. 2012).

    k(x, y) = mean over m in KERNELS of exp(−‖x − y‖² / (m s)), s the mean squared distance between all rows, which is
    not differentiated. The biased estimate: never below 0, and 0 for equal samples.
    """
    n = tf.shape(source)[0]
    rows = tf.concat([source, target], axis=0)
    distances = _squared_distances(rows)
    count = tf.cast(tf.shape(rows)[0], tf.float32)
    scale = tf.reduce_sum(distances) / tf.maximum(count * (count - 1.0), 1.0)
    scale = tf.stop_gradient(tf.maximum(scale, _LEAST))
    kernel = tf.add_n([tf.exp(-distances / (m * scale)) for m in MMD_BANDWIDTHS]) / len(MMD_BANDWIDTHS)
    own = tf.reduce_mean(kernel[:n, :n]) + tf.reduce_mean(kernel[n:, n:])
    return own - 2.0 * tf.reduce_mean(kernel[:n, n:])


def _covariance(x: Any) -> Any:
    centred = x - tf.reduce_mean(x, axis=0, keepdims=True)
    count = tf.cast(tf.shape(x)[0], tf.float32)
    return tf.matmul(centred, centred, transpose_a=True) / tf.maximum(count - 1.0, 1.0)


def _squared_distances(x: Any) -> Any:
    """(n, n); of centred rows, so that little is lost in the difference."""
    centred = x - tf.stop_gradient(tf.reduce_mean(x, axis=0, keepdims=True))
    norms = tf.reduce_sum(tf.square(centred), axis=1)
    products = tf.matmul(centred, centred, transpose_b=True)
    return tf.maximum(norms[:, None] + norms[None, :] - 2.0 * products, 0.0)


DISCRIMINATOR_UNITS = 64
"""Width of the discriminator's hidden layer."""

DISCRIMINATOR_SHAPES: tuple[tuple[int | None, ...], ...] = (
    (None, DISCRIMINATOR_UNITS),
    (DISCRIMINATOR_UNITS,),
    (DISCRIMINATOR_UNITS, 1),
    (1,),
)

_KEY = 0xD15C


def initial_discriminator(width: int, seed: int) -> list[np.ndarray]:
    """Kernels and biases of a discriminator of ``width`` inputs."""
    return initial_weights(
        [(width, DISCRIMINATOR_UNITS), (DISCRIMINATOR_UNITS,), (DISCRIMINATOR_UNITS, 1), (1,)], seed ^ _KEY
    )


def reverse_gradient(x: Any, strength: Any) -> Any:
    """``x``; its gradient is multiplied by −``strength``."""

    def same(tensor: Any) -> Any:
        return tf.identity(tensor), lambda upstream: -strength * upstream

    return tf.custom_gradient(same)(x)


def adversarial_loss(source: Any, target: Any, variables: Sequence[Any], strength: Any) -> Any:
    """The discriminator's mean cross-entropy, each domain for a half; λ is ``strength``, a scalar."""
    x = reverse_gradient(tf.concat([source, target], axis=0), strength)
    kernel, bias, last_kernel, last_bias = variables
    hidden = tf.nn.relu(tf.matmul(x, kernel) + bias)
    logits = (tf.matmul(hidden, last_kernel) + last_bias)[:, 0]
    n = tf.shape(source)[0]
    return 0.5 * (tf.reduce_mean(tf.nn.softplus(-logits[:n])) + tf.reduce_mean(tf.nn.softplus(logits[n:])))
