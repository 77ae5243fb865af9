"""What a student minimises: the labels' cross-entropy, and how far it is from its teacher.

    L = CE + w · (plain + relational)

    plain:       T² · KL(softmax(z / T) ‖ softmax(y / T)), the mean over the batch
    relational:  distances + 2 · angles

z are the teacher's scores, y the student's, T the temperature (Hinton et al. 2015, https://arxiv.org/abs/1503.02531,
section 2: T² keeps the size of the gradients). Distances and angles are those of :mod:`trainables.relations`, between
the teacher's embeddings and the inputs of the student's last layer, weighted as their paper does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from trainables.compiled.objective import Extra, Objective, Step
from trainables.relations import angle_loss, distance_loss

ANGLES = 2.0
"""Weight of angles against distances (Park et al. 2019, section 4)."""

EMBEDDINGS, SCORES = "teacher_embeddings", "teacher_scores"
"""Arrays beside the images: (N, C), (N, K)."""


@dataclass(frozen=True)
class Distillation(Objective):
    """Learning from a teacher whose embeddings are ``features`` wide, of type ``dtype``, for ``classes``.

    Both weights are numbers of the step, so one graph serves every kind of distillation; what weighs nothing is not
    computed.
    """

    features: int
    classes: int
    dtype: str = "float16"

    @property
    def extras(self) -> tuple[Extra, ...]:
        """What the teacher makes of each image."""
        return Extra(EMBEDDINGS, (self.features,), self.dtype), Extra(SCORES, (self.classes,))

    @property
    def numbers(self) -> tuple[str, ...]:
        """Weights of both kinds, and the temperature."""
        return "plain", "relational", "temperature"

    def loss(self, step: Step) -> Any:
        """L above."""
        embeddings, scores, numbers = step.extras[EMBEDDINGS], step.extras[SCORES], step.numbers
        plain = _unless_zero(
            numbers["plain"], lambda: plain_loss(scores, step.scores, numbers["temperature"])
        )
        relational = _unless_zero(numbers["relational"], lambda: relational_loss(embeddings, step.hidden))
        return tf.reduce_mean(step.cross_entropy) + plain + relational


def plain_loss(teacher: Any, student: Any, temperature: Any) -> Any:
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
    return distance_loss(teacher, student) + ANGLES * angle_loss(teacher, student)


def _unless_zero(weight: Any, loss: Callable[[], Any]) -> Any:
    return tf.cond(weight > 0.0, lambda: weight * loss(), lambda: tf.constant(0.0))
