"""How far apart the features of two samples are, as losses inside a graph."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

KERNELS = (0.25, 0.5, 1.0, 2.0, 4.0)
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
    kernel = tf.add_n([tf.exp(-distances / (m * scale)) for m in KERNELS]) / len(KERNELS)
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
