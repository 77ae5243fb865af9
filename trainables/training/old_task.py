"""The old task: how well it is still done once a backbone has been trained for another.

A head for it is fitted to the frozen backbone's features of the old training images (multinomial logistic regression).
*Before* is its accuracy on features of the untouched backbone, *after* on those of the trained one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainables.compiled.suffix import trainable_copy
from trainables.cost_account import CostAccount
from trainables.tracing import BUILD_LOCK, tracing

if TYPE_CHECKING:
    from trainables.training.workbench import Workbench

FISHER_PASSES = 2560
"""Backward passes, one an image and class, from which the importance of weights is estimated."""

MIN_FISHER_IMAGES, MAX_FISHER_IMAGES = 32, 256
"""Old images that this is spread over."""

MAX_ITERATIONS = 300


@dataclass(frozen=True)
class OldHead:
    """``kernel`` (C, K) and ``bias`` (K,), float32, from pooled features to scores of the old classes."""

    kernel: np.ndarray
    bias: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(N, K) of features (N, C)."""
        return np.asarray(features.astype(np.float32) @ self.kernel + self.bias)


def fitted_old_head(bench: Workbench, account: CostAccount) -> OldHead:
    """Fitted once for all trials of the process."""
    old = bench.remembered

    def fit() -> OldHead:
        features = np.concatenate(list(old.activations.chunks("train", 0, account))).astype(np.float64)
        return fit_head(features, np.asarray(old.split("train").labels), len(old.task.classes))

    found: OldHead = old.once("old head", fit)
    return found


def fit_head(features: np.ndarray, labels: np.ndarray, classes: int) -> OldHead:
    """Of (N, C) features and (N,) labels; classes without images have the least score of all."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread == 0] = 1.0
    known = np.unique(labels)
    kernel, bias = np.zeros((features.shape[1], classes)), np.full(classes, -1e3)
    if len(known) == 1:
        bias[known] = 0.0
        return OldHead(kernel.astype(np.float32), bias.astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a head that is nearly there is one, too
        fitted = LogisticRegression(max_iter=MAX_ITERATIONS).fit((features - mean) / spread, labels)
    rows, start = fitted.coef_, fitted.intercept_
    if len(known) == 2:  # one row says both
        rows, start = np.concatenate([-rows, rows]) / 2, np.concatenate([-start, start]) / 2
    kernel[:, known] = (rows / spread).T
    bias[known] = start - rows @ (mean / spread)
    return OldHead(kernel.astype(np.float32), bias.astype(np.float32))


def old_correct(
    bench: Workbench,
    head: OldHead,
    depth: int,
    weights: Sequence[np.ndarray] | None,
    split: str,
    account: CostAccount,
) -> NDArray[np.bool_]:
    """Whether each image (N,) of the old task's ``split`` is told right, with the top ``depth`` blocks at ``weights``
    (None: untouched).

    ``weights`` may go on behind the blocks' own, as those of a program do.
    """
    old = bench.remembered
    labels, seen = np.asarray(old.split(split).labels), 0
    right: list[NDArray[np.bool_]] = []
    blocks: Callable[[np.ndarray], Any] | None = None
    if depth and weights is not None:
        with BUILD_LOCK:
            suffix = trainable_copy(bench.backbone.parts(depth)[1], adapt=False, momentum=1.0)
            suffix.set_weights(weights[: len(suffix.weights)])
        blocks = _compiled(suffix)
    for chunk in _at_cut(bench, split, depth if weights is not None else 0, account):
        features = np.asarray(chunk if blocks is None else blocks(chunk))
        said = head.scores(features).argmax(axis=1)
        right.append(said == labels[seen : seen + len(said)])
        seen += len(said)
    return np.concatenate(right)


def old_accuracy(
    bench: Workbench,
    head: OldHead,
    depth: int,
    weights: Sequence[np.ndarray] | None,
    split: str,
    account: CostAccount,
) -> float:
    """The share of :func:`old_correct`."""
    return float(old_correct(bench, head, depth, weights, split, account).mean())


def fisher_importance(bench: Workbench, depth: int, head: OldHead, account: CostAccount) -> list[np.ndarray]:
    """How much each weight of the top ``depth`` blocks matters to the old task, in the order of the blocks' weights.

    :func:`fisher_diagonal` at the pretrained weights over old training images, divided by its mean over all trained
    weights, so that a strength means as much as in L2-SP, where each weight counts 1.
    """
    old = bench.remembered
    images = min(MAX_FISHER_IMAGES, max(MIN_FISHER_IMAGES, FISHER_PASSES // len(old.task.classes)))

    def estimate() -> list[np.ndarray]:
        with BUILD_LOCK:
            suffix = trainable_copy(bench.backbone.parts(depth)[1], adapt=False, momentum=1.0)
        chunks: list[np.ndarray] = []
        for chunk in _at_cut(bench, "train", depth, account):
            chunks.append(chunk)
            if sum(map(len, chunks)) >= images:
                break
        found = fisher_diagonal(suffix, head, np.concatenate(chunks)[:images])
        trained = {id(v) for v in suffix.trainable_variables}
        sizes = sum(f.size for f, w in zip(found, suffix.weights, strict=True) if id(w) in trained)
        mean = sum(float(f.sum()) for f in found) / max(sizes, 1)
        return [f / mean if mean > 0 else f for f in found]

    importance: list[np.ndarray] = old.once(("fisher", depth), estimate)
    return importance


def fisher_diagonal(suffix: Any, head: OldHead, inputs: np.ndarray) -> list[np.ndarray]:
    """The diagonal of the Fisher information of ``suffix`` under ``head``, an array for each of its weights.

    Mean over the ``inputs`` (N, …) of Σ_y p(y | x) (∂ log p(y | x) / ∂w)² (Kirkpatrick et al. 2017, section 2; with the
    expectation over the model's own answers, not the labels). Zero for statistics that no gradient trains.
    """
    variables = list(suffix.trainable_variables)
    kernel, bias = tf.constant(head.kernel), tf.constant(head.bias)

    def of_one(x: Any, answer: Any) -> Any:
        with tf.GradientTape() as tape:
            features = tf.cast(suffix(x, training=False), tf.float32)
            log_p = tf.nn.log_softmax(features @ kernel + bias)[0, answer]
        gradients = tape.gradient(log_p, [v.value for v in variables])
        weighted = zip(variables, gradients, strict=True)
        return [tf.zeros_like(v.value) if g is None else tf.exp(log_p) * tf.square(g) for v, g in weighted]

    with tracing():
        one = tf.TensorSpec([1, *suffix.inputs[0].shape[1:]], tf.float32)
        part = tf.function(of_one).get_concrete_function(one, tf.TensorSpec([], tf.int32))
    total = [np.zeros(v.shape, np.float64) for v in variables]
    for row in range(len(inputs)):
        for answer in range(len(head.bias)):
            found = part(tf.constant(inputs[row : row + 1], tf.float32), tf.constant(answer))
            for sum_, new in zip(total, found, strict=True):
                sum_ += np.asarray(new, np.float64)
    of = {id(v): (sum_ / len(inputs)).astype(np.float32) for v, sum_ in zip(variables, total, strict=True)}
    return [of.get(id(w), np.zeros(w.shape, np.float32)) for w in suffix.weights]


def _at_cut(bench: Workbench, split: str, depth: int, account: CostAccount) -> Iterator[np.ndarray]:
    """Activations of the old images in order, in pieces; where the prefix only preprocesses none are kept."""
    old = bench.remembered
    stages, images = old.activations.stages, old.split(split).images
    if depth < stages.input_depth:
        yield from old.activations.chunks(split, depth, account)
        return
    prefix = _compiled(bench.backbone.parts(depth)[0])
    for piece in stages.chunk_slices(len(images)):
        yield np.asarray(prefix(images[piece]), np.float32)


def _compiled(model: Any) -> Callable[[np.ndarray], Any]:
    """What ``model`` makes of inputs (N, …) in inference mode, float32; traced under the lock: trials run beside it."""
    with tracing():
        run = tf.function(
            lambda x: tf.cast(model(x, training=False), tf.float32), autograph=False
        ).get_concrete_function(tf.TensorSpec([None, *model.inputs[0].shape[1:]], tf.float32))
    return lambda inputs: run(tf.cast(inputs, tf.float32))
