"""Losses that measure how far apart the features of two domains are: CORAL, MMD, and a domain discriminator (DANN).

All of them take features (n_S, d) of the source and (n_T, d) of the target, are used inside a graph, and return a
scalar.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.compiled.head import initial_weights

MMD_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths m of the mixture of kernels, in mean squared distances (Long et al. 2015, Learning transferable features
with deep adaptation networks). A mixture needs no choice of one bandwidth."""

_LEAST = 1e-12


def coral(source: Any, target: Any) -> Any:
    """Return ‖C_S − C_T‖²_F / (4 d²), the distance of the covariances C (Sun & Saenko 2016, Deep CORAL)."""
    width = tf.cast(tf.shape(source)[1], tf.float32)
    return tf.reduce_sum(tf.square(_covariance(source) - _covariance(target))) / (4.0 * tf.square(width))


def mmd(source: Any, target: Any) -> Any:
    """Return the squared maximum mean discrepancy under a mean of Gaussian kernels (Gretton et al. 2012).

    The kernel is k(x, y) = mean over m in MMD_BANDWIDTHS of exp(−‖x − y‖² / (m s)), where s is the mean squared
    distance between all rows. The estimate is the biased one: it is never below 0, and 0 for equal samples.
    """
    n = tf.shape(source)[0]
    rows = tf.concat([source, target], axis=0)
    distances = _squared_distances(rows)
    count = tf.cast(tf.shape(rows)[0], tf.float32)
    scale = tf.reduce_sum(distances) / tf.maximum(count * (count - 1.0), 1.0)
    # The bandwidth is a choice that is made from the data, not a part of the distance: no gradient flows through it.
    scale = tf.stop_gradient(tf.maximum(scale, _LEAST))
    kernel = tf.add_n([tf.exp(-distances / (m * scale)) for m in MMD_BANDWIDTHS]) / len(MMD_BANDWIDTHS)
    own = tf.reduce_mean(kernel[:n, :n]) + tf.reduce_mean(kernel[n:, n:])
    return own - 2.0 * tf.reduce_mean(kernel[:n, n:])


def _covariance(x: Any) -> Any:
    centred = x - tf.reduce_mean(x, axis=0, keepdims=True)
    count = tf.cast(tf.shape(x)[0], tf.float32)
    return tf.matmul(centred, centred, transpose_a=True) / tf.maximum(count - 1.0, 1.0)


def _squared_distances(x: Any) -> Any:
    """Return the squared distances (n, n) of the rows.

    They are ‖x‖² + ‖y‖² − 2 x·y of centred rows: the closer the rows are to the origin, the fewer digits cancel.
    """
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
"""Keeps the first weights of the discriminator different from those of the head, which the same seed decides."""


def initial_discriminator(width: int, seed: int) -> list[np.ndarray]:
    """Return the first kernels and biases of a discriminator with ``width`` inputs, a function of ``seed``."""
    return initial_weights(
        [(width, DISCRIMINATOR_UNITS), (DISCRIMINATOR_UNITS,), (DISCRIMINATOR_UNITS, 1), (1,)], seed ^ _KEY
    )


def reverse_gradient(x: Any, strength: Any) -> Any:
    """Return ``x``; its gradient is multiplied by −``strength``. This is the gradient reversal layer of DANN."""

    def same(tensor: Any) -> Any:
        return tf.identity(tensor), lambda gradient: -strength * gradient

    return tf.custom_gradient(same)(x)


def adversarial_loss(source: Any, target: Any, variables: Sequence[Any], strength: Any) -> Any:
    """Return the cross-entropy of a discriminator that tells source from target; both domains count one half.

    This is domain-adversarial training (Ganin et al. 2016, DANN). One backward pass trains both sides: the
    discriminator learns to tell the domains apart, and its gradient is reversed and scaled on its way into the network,
    which learns to prevent that.

    Args:
        source: (n_S, d).
        target: (n_T, d).
        variables: kernel (d, U), bias (U,), kernel (U, 1) and bias (1,) of the discriminator.
        strength: λ, a scalar.
    """
    x = reverse_gradient(tf.concat([source, target], axis=0), strength)
    kernel, bias, last_kernel, last_bias = variables
    hidden = tf.nn.relu(tf.matmul(x, kernel) + bias)
    logits = (tf.matmul(hidden, last_kernel) + last_bias)[:, 0]
    n = tf.shape(source)[0]
    # softplus(−z) and softplus(z) are the cross-entropies of the labels 1 (source) and 0 (target) on a logit z.
    return 0.5 * (tf.reduce_mean(tf.nn.softplus(-logits[:n])) + tf.reduce_mean(tf.nn.softplus(logits[n:])))
