"""Estimates how much each weight of a backbone matters to an old task: the diagonal of the Fisher information.

    Fᵢ = E_x Σ_y p(y | x) (∂ log p(y | x) / ∂θᵢ)²

Elastic weight consolidation (Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796, section 2) uses it to hold back
the weights that the old task depends on. The expectation over y is taken over the model's own predictions, not over the
labels, as the Fisher information requires.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from trainables.compiled.suffix import trainable_copy
from trainables.cost_account import CostAccount
from trainables.tracing import BUILD_LOCK, tracing
from trainables.training.old_task import OldHead, old_activations

if TYPE_CHECKING:
    from trainables.training.workbench import Workbench

FISHER_PASSES = 2560
"""Backward passes of one estimate: one for each image and class. More classes mean fewer images."""

MIN_FISHER_IMAGES, MAX_FISHER_IMAGES = 32, 256
"""Bounds of the number of old images in one estimate."""


def fisher_importance(bench: Workbench, depth: int, head: OldHead, account: CostAccount) -> list[np.ndarray]:
    """Return how much each weight of the top ``depth`` blocks matters to the old task.

    This is :func:`fisher_diagonal` at the pretrained weights over old training images, divided by its mean over all
    trained weights: a penalty of some strength is then as strong as in L2-SP, where each weight counts 1. It is
    computed once for all trials of the process.

    Returns:
        One float32 array for each weight of the blocks, in the order of ``suffix.weights``.
    """
    old = bench.old_task
    images = min(MAX_FISHER_IMAGES, max(MIN_FISHER_IMAGES, FISHER_PASSES // len(old.task.classes)))

    def estimate() -> list[np.ndarray]:
        with BUILD_LOCK:
            suffix = trainable_copy(bench.backbone.parts(depth)[1], adapt=False, momentum=1.0)
        chunks: list[np.ndarray] = []
        for chunk in old_activations(bench, "train", depth, account):
            chunks.append(chunk)
            if sum(map(len, chunks)) >= images:
                break
        diagonal = fisher_diagonal(suffix, head, np.concatenate(chunks)[:images])
        trained = {id(v) for v in suffix.trainable_variables}
        count = sum(f.size for f, w in zip(diagonal, suffix.weights, strict=True) if id(w) in trained)
        mean = sum(float(f.sum()) for f in diagonal) / max(count, 1)
        return [f / mean if mean > 0 else f for f in diagonal]

    importance: list[np.ndarray] = old.compute_once(("fisher", depth), estimate)
    return importance


def fisher_diagonal(suffix: Any, head: OldHead, inputs: np.ndarray) -> list[np.ndarray]:
    """Return the diagonal F of the Fisher information of ``suffix`` under ``head``.

    Args:
        suffix: Keras model from activations to pooled features.
        head: from features to scores of the old classes.
        inputs: (N, …) activations over which the expectation is taken.

    Returns:
        One float32 array for each weight of ``suffix``; zeros for statistics that no gradient trains.
    """
    variables = list(suffix.trainable_variables)
    kernel, bias = tf.constant(head.kernel), tf.constant(head.bias)

    def weighted_square(x: Any, y: Any) -> Any:
        """p(y | x) (∂ log p(y | x) / ∂θ)² of one image ``x`` (1, …) and one class ``y``."""
        with tf.GradientTape() as tape:
            features = tf.cast(suffix(x, training=False), tf.float32)
            log_p = tf.nn.log_softmax(features @ kernel + bias)[0, y]
        gradients = tape.gradient(log_p, [v.value for v in variables])
        pairs = zip(variables, gradients, strict=True)
        return [tf.zeros_like(v.value) if g is None else tf.exp(log_p) * tf.square(g) for v, g in pairs]

    with tracing():
        image = tf.TensorSpec([1, *suffix.inputs[0].shape[1:]], tf.float32)
        compiled = tf.function(weighted_square).get_concrete_function(image, tf.TensorSpec([], tf.int32))
    # The square is taken of each image's own gradient, so images cannot share one backward pass as in a batch.
    sums = [np.zeros(v.shape, np.float64) for v in variables]
    for row in range(len(inputs)):
        for y in range(len(head.bias)):
            terms = compiled(tf.constant(inputs[row : row + 1], tf.float32), tf.constant(y))
            for total, term in zip(sums, terms, strict=True):
                total += np.asarray(term, np.float64)
    means = {
        id(v): (total / len(inputs)).astype(np.float32) for v, total in zip(variables, sums, strict=True)
    }
    return [means.get(id(w), np.zeros(w.shape, np.float32)) for w in suffix.weights]
