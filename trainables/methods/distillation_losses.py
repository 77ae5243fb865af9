"""What a student minimises: the labels' cross-entropy, and how far it is from its teacher.

    L = CE + w · (plain + relational)

    plain:       T² · KL(softmax(z / T) ‖ softmax(y / T)), the mean over the batch
    relational:  distances + 2 · angles

z are the teacher's scores, y the student's, T the temperature (Hinton et al. 2015, https://arxiv.org/abs/1503.02531,
section 2: T² keeps the size of the gradients). Distances and angles are those of
:mod:`trainables.methods.distillation_losses`, between
the teacher's embeddings and the inputs of the student's last layer, weighted as their paper does.

Relations between the samples of a batch, and how far two networks disagree about them.

Relational knowledge distillation (Park et al. 2019, https://arxiv.org/abs/1904.05068). For embeddings t of a teacher
and s of a student, with l the Huber loss of threshold 1:

    distances, equations 5 to 7:    ψ(tᵢ, tⱼ) = ‖tᵢ − tⱼ‖ / μ,  μ their mean;    l(ψ(tᵢ, tⱼ), ψ(sᵢ, sⱼ))
    angles, equations 8 to 10:      ψ(tᵢ, tⱼ, tₖ) = cos ∠ tᵢ tⱼ tₖ;             l(ψ(tᵢ, tⱼ, tₖ), ψ(sᵢ, sⱼ, sₖ))

Each is the mean over all pairs and triplets of different places in the batch. Samples that coincide have the distance
zero and make no angle: its cosine counts as zero, and no gradient comes from there. A batch of one has no relation, one
of two no angle. Distances come from a Gram matrix of float64, which takes B² numbers where differences would take B²C.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from trainables.compiled.objective import ExampleInput, LossInputs, TrainingLoss

COINCIDENT = 1e-12
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
    apart = squares > COINCIDENT * both
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


ANGLE_WEIGHT = 2.0
"""Weight of angles against distances (Park et al. 2019, section 4)."""

EMBEDDINGS, SCORES = "teacher_embeddings", "teacher_scores"
"""Arrays beside the images: (N, C), (N, K)."""


@dataclass(frozen=True)
class DistillationLoss(TrainingLoss):
    """Learning from a teacher whose embeddings are ``features`` wide, of type ``dtype``, for ``classes``.

    Both weights are numbers of the step, so one graph serves every kind of distillation; what weighs nothing is not
    computed.
    """

    features: int
    classes: int
    dtype: str = "float16"

    @property
    def extras(self) -> tuple[ExampleInput, ...]:
        """What the teacher makes of each image."""
        return ExampleInput(EMBEDDINGS, (self.features,), self.dtype), ExampleInput(SCORES, (self.classes,))

    @property
    def numbers(self) -> tuple[str, ...]:
        """Weights of both kinds, and the temperature."""
        return "plain", "relational", "temperature"

    def loss(self, step: LossInputs) -> Any:
        """L above."""
        embeddings, scores, numbers = step.extras[EMBEDDINGS], step.extras[SCORES], step.numbers
        plain = _unless_zero(
            numbers["plain"], lambda: soft_target_loss(scores, step.scores, numbers["temperature"])
        )
        relational = _unless_zero(numbers["relational"], lambda: relational_loss(embeddings, step.hidden))
        return tf.reduce_mean(step.cross_entropy) + plain + relational


def soft_target_loss(teacher: Any, student: Any, temperature: Any) -> Any:
    """How far the student's softened answers are from the teacher's: scores (B, K) of both to a scalar.

    In float64: of answers that are soft nearly all digits cancel.
    """
    teacher, student, temperature = (tf.cast(x, tf.float64) for x in (teacher, student, temperature))
    log_wanted = tf.nn.log_softmax(teacher / temperature)
    log_given = tf.nn.log_softmax(student / temperature)
    divergence = tf.reduce_sum(tf.exp(log_wanted) * (log_wanted - log_given), axis=-1)
    return tf.cast(tf.square(temperature) * tf.reduce_mean(divergence), tf.float32)


def relational_loss(teacher: Any, student: Any) -> Any:
    """How far the student's relations within a batch are from the teacher's: (B, C) and (B, D) to a scalar."""
    return distance_loss(teacher, student) + ANGLE_WEIGHT * angle_loss(teacher, student)


def _unless_zero(weight: Any, loss: Callable[[], Any]) -> Any:
    return tf.cond(weight > 0.0, lambda: weight * loss(), lambda: tf.constant(0.0))
