"""Losses of knowledge distillation: how far a student's predictions and relations are from its teacher's.

The student minimises

    L = CE + w · (plain + relational)

    plain:       T² · KL(softmax(z / T) ‖ softmax(y / T)), the mean over the batch
    relational:  distances + 2 · angles

with the cross-entropy CE of the labels, the scores z of the teacher and y of the student, and the temperature T. The
plain loss is that of Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2; the factor T² keeps the gradients
as large as those of the labels.

The relational loss is relational knowledge distillation (Park et al. 2019, https://arxiv.org/abs/1904.05068). It
compares relations between the images of a batch. For embeddings t of the teacher and s of the student (the inputs of
its last layer), and the Huber loss l with threshold 1:

    distances, equations 5 to 7:    ψ(tᵢ, tⱼ) = ‖tᵢ − tⱼ‖ / μ,  μ their mean;    l(ψ(tᵢ, tⱼ), ψ(sᵢ, sⱼ))
    angles, equations 8 to 10:      ψ(tᵢ, tⱼ, tₖ) = cos ∠ tᵢ tⱼ tₖ;             l(ψ(tᵢ, tⱼ, tₖ), ψ(sᵢ, sⱼ, sₖ))

Each is the mean over all pairs, or triplets, of different positions in the batch. Images that coincide have distance 0
and form no angle: the cosine counts as 0 and has no gradient. A batch of one image has no relations, one of two no
angles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from trainables.compiled.loss import ExampleInput, LossInputs, TrainingLoss

ANGLE_WEIGHT = 2.0
"""Weight of the angles relative to the distances (Park et al. 2019, section 4)."""

EMBEDDINGS, SCORES = "teacher_embeddings", "teacher_scores"
"""Names of the loss's example inputs."""

COINCIDENT = 1e-12
"""Squared distance, as a share of the images' squared lengths, below which two images coincide. Features are float32:
they cannot resolve less."""


@dataclass(frozen=True)
class DistillationLoss(TrainingLoss):
    """The loss L of labels and teacher.

    The weights of both parts are arguments of the step, so one graph serves every kind of distillation. A part with
    weight 0 is not computed.

    Attributes:
        features: width C of the teacher's embeddings.
        classes: number of classes K.
        dtype: type of the embeddings.
    """

    features: int
    classes: int
    dtype: str = "float16"

    @property
    def example_inputs(self) -> tuple[ExampleInput, ...]:
        """``teacher_embeddings`` (B, C) and ``teacher_scores`` (B, K)."""
        return ExampleInput(EMBEDDINGS, (self.features,), self.dtype), ExampleInput(SCORES, (self.classes,))

    @property
    def scalars(self) -> tuple[str, ...]:
        """The weights of both parts, and the temperature."""
        return "plain", "relational", "temperature"

    def loss(self, inputs: LossInputs) -> Any:
        """Return L, the mean over the batch."""
        embeddings, scores = inputs.example_inputs[EMBEDDINGS], inputs.example_inputs[SCORES]
        scalars = inputs.scalars
        plain = _unless_zero(
            scalars["plain"], lambda: soft_target_loss(scores, inputs.scores, scalars["temperature"])
        )
        relational = _unless_zero(scalars["relational"], lambda: relational_loss(embeddings, inputs.hidden))
        return tf.reduce_mean(inputs.cross_entropy) + plain + relational


def soft_target_loss(teacher: Any, student: Any, temperature: Any) -> Any:
    """Return T² · KL of the softened predictions, a float32 scalar, the mean over the batch.

    Computed in float64: at high temperatures both distributions are nearly uniform, and almost all digits cancel.

    Args:
        teacher: (B, K) scores before softmax.
        student: (B, K) scores before softmax.
        temperature: T, a scalar above 0.
    """
    teacher, student, temperature = (tf.cast(x, tf.float64) for x in (teacher, student, temperature))
    log_wanted = tf.nn.log_softmax(teacher / temperature)
    log_given = tf.nn.log_softmax(student / temperature)
    divergence = tf.reduce_sum(tf.exp(log_wanted) * (log_wanted - log_given), axis=-1)
    return tf.cast(tf.square(temperature) * tf.reduce_mean(divergence), tf.float32)


def relational_loss(teacher: Any, student: Any) -> Any:
    """Return the distance loss plus twice the angle loss of embeddings (B, C) and (B, D), a float32 scalar."""
    return distance_loss(teacher, student) + ANGLE_WEIGHT * angle_loss(teacher, student)


def _unless_zero(weight: Any, loss: Callable[[], Any]) -> Any:
    """``weight`` times the loss, which is only computed if the weight is above 0."""
    return tf.cond(weight > 0.0, lambda: weight * loss(), lambda: tf.constant(0.0))


def distance_loss(teacher: Any, student: Any) -> Any:
    """Return the disagreement on distances between the rows of embeddings (B, C) and (B, D), a float32 scalar."""
    (theirs, _), (ours, _) = _distances(teacher), _distances(student)
    return _mean(_huber(_over_mean(theirs) - _over_mean(ours)), _pairs(tf.shape(ours)[0]))


def angle_loss(teacher: Any, student: Any) -> Any:
    """Return the disagreement on the angles between three rows of embeddings (B, C) and (B, D), a float32 scalar."""
    ours = _cosines(student)
    return _mean(_huber(_cosines(teacher) - ours), _triplets(tf.shape(ours)[0]))


def _distances(x: Any) -> tuple[Any, Any]:
    """Return the distances (B, B) of the rows, and the Gram matrix (B, B) of the centred rows, both float64.

    Distances follow from the Gram matrix: B² numbers, where all differences would take B² C. Float64 because of the
    cancellation in ‖x‖² + ‖y‖² − 2 x·y.
    """
    x = tf.cast(x, tf.float64)
    x = x - tf.reduce_mean(x, axis=0)
    gram = tf.matmul(x, x, transpose_b=True)
    lengths = tf.linalg.diag_part(gram)
    both = lengths[:, tf.newaxis] + lengths
    squares = both - 2.0 * gram
    apart = squares > COINCIDENT * both
    # The inner ``where`` keeps sqrt from seeing 0: its gradient there is infinite, and infinite times the outer mask is
    # NaN.
    return tf.where(apart, tf.sqrt(tf.where(apart, squares, 1.0)), 0.0), gram


def _over_mean(distances: Any) -> Any:
    """Return distances divided by the mean of those between different positions; zeros if all images coincide."""
    mean = _mean(distances, _pairs(tf.shape(distances)[0]), tf.float64)
    return tf.math.divide_no_nan(distances, mean)


def _cosines(x: Any) -> Any:
    """Return cos ∠ xᵢ xⱼ xₖ at [j, i, k], (B, B, B) float64: (xᵢ − xⱼ)·(xₖ − xⱼ) over the product of the lengths."""
    distances, gram = _distances(x)
    lengths = tf.linalg.diag_part(gram)[:, tf.newaxis, tf.newaxis]
    across = gram[tf.newaxis] - gram[:, :, tf.newaxis] - gram[:, tf.newaxis, :] + lengths
    return tf.math.divide_no_nan(across, distances[:, :, tf.newaxis] * distances[:, tf.newaxis, :])


def _pairs(size: Any) -> Any:
    """Return 1 for each pair (i, j) of different positions, else 0: (B, B)."""
    return 1.0 - tf.eye(size, dtype=tf.float64)


def _triplets(size: Any) -> Any:
    """Return 1 for each triplet (j, i, k) of different positions, else 0: (B, B, B)."""
    pairs = _pairs(size)
    return pairs[:, :, tf.newaxis] * pairs[:, tf.newaxis, :] * pairs[tf.newaxis]


def _huber(difference: Any) -> Any:
    """The Huber loss with threshold 1, elementwise."""
    size = tf.abs(difference)
    return tf.where(size <= 1.0, 0.5 * tf.square(size), size - 0.5)


def _mean(values: Any, counted: Any, dtype: Any = tf.float32) -> Any:
    """The mean of the ``values`` whose ``counted`` is 1; zero if there is none."""
    return tf.cast(tf.math.divide_no_nan(tf.reduce_sum(values * counted), tf.reduce_sum(counted)), dtype)
