"""Relations between the samples of a batch, and how far two networks disagree about them.

Relational knowledge distillation (Park et al. 2019, https://arxiv.org/abs/1904.05068). For embeddings t of a teacher
and s of a student, with l the Huber loss of threshold 1:

    distances, equations 5 to 7:    ψ(tᵢ, tⱼ) = ‖tᵢ − tⱼ‖ / μ,  μ their mean;    l(ψ(tᵢ, tⱼ), ψ(sᵢ, sⱼ))
    angles, equations 8 to 10:      ψ(tᵢ, tⱼ, tₖ) = cos ∠ tᵢ tⱼ tₖ;             l(ψ(tᵢ, tⱼ, tₖ), ψ(sᵢ, sⱼ, sₖ))

Each is the mean over all pairs and triplets of different places in the batch. Samples that coincide have the distance
zero and make no angle: its cosine counts as zero, and no gradient comes from there. A batch of one has no relation, one
of two no angle. Distances come from a Gram matrix of float64, which takes B² numbers where differences would take B²C.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

SAME = 1e-12
"""Squared distance, as a share of the samples' own squared lengths, under which two samples are one: below float32."""


def distance_loss(teacher: Any, student: Any) -> Any:
    """Disagreement (scalar, float32) on distances between the rows of (B, C) and (B, D)."""
    (theirs, _), (ours, _) = _distances(teacher), _distances(student)
    return _mean(_huber(_over_mean(theirs) - _over_mean(ours)), _pairs(tf.shape(ours)[0]))


def angle_loss(teacher: Any, student: Any) -> Any:
    """Disagreement (scalar, float32) on the angles that three rows of (B, C) and (B, D) make."""
    ours = _cosines(student)
    return _mean(_huber(_cosines(teacher) - ours), _triplets(tf.shape(ours)[0]))


def _distances(x: Any) -> tuple[Any, Any]:
    """Distances (B, B), and the products (B, B) of the rows about their mean, float64."""
    x = tf.cast(x, tf.float64)
    x = x - tf.reduce_mean(x, axis=0)
    gram = tf.matmul(x, x, transpose_b=True)
    lengths = tf.linalg.diag_part(gram)
    both = lengths[:, tf.newaxis] + lengths
    squares = both - 2.0 * gram
    apart = squares > SAME * both
    return tf.where(apart, tf.sqrt(tf.where(apart, squares, 1.0)), 0.0), gram


def _over_mean(distances: Any) -> Any:
    """Each distance over the mean of those between different places; zeros where all samples coincide."""
    mean = _mean(distances, _pairs(tf.shape(distances)[0]), tf.float64)
    return tf.math.divide_no_nan(distances, mean)


def _cosines(x: Any) -> Any:
    """cos ∠ xᵢ xⱼ xₖ at [j, i, k], (B, B, B) float64."""
    distances, gram = _distances(x)
    lengths = tf.linalg.diag_part(gram)[:, tf.newaxis, tf.newaxis]
    across = gram[tf.newaxis] - gram[:, :, tf.newaxis] - gram[:, tf.newaxis, :] + lengths
    return tf.math.divide_no_nan(across, distances[:, :, tf.newaxis] * distances[:, tf.newaxis, :])


def _pairs(size: Any) -> Any:
    """Which (i, j) are different places."""
    return 1.0 - tf.eye(size, dtype=tf.float64)


def _triplets(size: Any) -> Any:
    """Which (j, i, k) are three different places."""
    pairs = _pairs(size)
    return pairs[:, :, tf.newaxis] * pairs[:, tf.newaxis, :] * pairs[tf.newaxis]


def _huber(difference: Any) -> Any:
    size = tf.abs(difference)
    return tf.where(size <= 1.0, 0.5 * tf.square(size), size - 0.5)


def _mean(values: Any, counted: Any, dtype: Any = tf.float32) -> Any:
    """Of those that are counted; zero if none is."""
    return tf.cast(tf.math.divide_no_nan(tf.reduce_sum(values * counted), tf.reduce_sum(counted)), dtype)
