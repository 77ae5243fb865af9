"""Measures how well a backbone still does an old task after it was trained for a new one.

A head for the old task, a multinomial logistic regression, is fitted to the features of the old training images under
the untouched backbone. The accuracy *before* training is that of this head on the untouched backbone; the accuracy
*after* is measured on the trained backbone, with the same head, or with one that the method trained along with it.
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

MAX_ITERATIONS = 300
"""Iterations of the solver that fits the head of the old task."""

ABSENT_CLASS_BIAS = -1e3
"""Score of classes without training images; softmax gives them a probability of 0."""


@dataclass(frozen=True)
class OldHead:
    """A linear head for the old task.

    Attributes:
        kernel: (C, K) float32, from C pooled features to K old classes.
        bias: (K,) float32.
    """

    kernel: np.ndarray
    bias: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Return scores (N, K) before softmax of features (N, C)."""
        return np.asarray(features.astype(np.float32) @ self.kernel + self.bias)


class OldTaskScorer:
    """Classifies the images of a trial's old task before and after training.

    Attributes:
        trained_head: the head of the old task as the best epoch left it, for methods that train it along with the
            backbone; None for the fitted head.
    """

    def __init__(self, bench: Workbench, account: CostAccount) -> None:
        self._bench, self._account = bench, account
        self.trained_head: OldHead | None = None
        self._correct: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def available(self) -> bool:
        """Whether there is an old task."""
        return self._bench.open_old_task is not None

    def correct(
        self, split: str, depth: int, weights: Sequence[np.ndarray]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return whether each image (N,) of ``split`` is classified correctly, before and after training.

        The result is computed once for each split, so call this only when ``weights`` are final.

        Args:
            split: of the old task.
            depth: how many blocks were trained, counted from the top.
            weights: of the trained blocks, then of the new head, which is ignored.

        Raises:
            UsageError: there is no old task.
        """
        if split not in self._correct:
            bench, account = self._bench, self._account
            head = fitted_old_head(bench, account)
            self._correct[split] = (
                old_correct(bench, head, 0, None, split, account),
                old_correct(bench, self.trained_head or head, depth, weights, split, account),
            )
        return self._correct[split]


def fitted_old_head(bench: Workbench, account: CostAccount) -> OldHead:
    """Return the head of the old task on the untouched backbone, fitted once for all trials of the process.

    Raises:
        UsageError: there is no old task.
    """
    old = bench.old_task

    def fit() -> OldHead:
        features = np.concatenate(list(old.activations.chunks("train", 0, account))).astype(np.float64)
        return fit_head(features, np.asarray(old.split("train").labels), len(old.task.classes))

    found: OldHead = old.compute_once("old head", fit)
    return found


def fit_head(features: np.ndarray, labels: np.ndarray, classes: int) -> OldHead:
    """Fit a multinomial logistic regression.

    The solver sees standardised features; mean and deviation are folded into the kernel and the bias that are returned.

    Args:
        features: (N, C) float64.
        labels: (N,) integers below ``classes``. Classes without images get the lowest score of all.
        classes: number of classes K.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation[deviation == 0] = 1.0  # a constant feature stays zero
    present = np.unique(labels)
    kernel, bias = np.zeros((features.shape[1], classes)), np.full(classes, ABSENT_CLASS_BIAS)
    if len(present) == 1:  # scikit-learn refuses to fit a single class
        bias[present] = 0.0
        return OldHead(kernel.astype(np.float32), bias.astype(np.float32))
    with warnings.catch_warnings():
        # A head that has nearly converged measures forgetting as well as one that has.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = LogisticRegression(max_iter=MAX_ITERATIONS).fit((features - mean) / deviation, labels)
    rows, intercepts = fitted.coef_, fitted.intercept_
    if len(present) == 2:
        # For two classes scikit-learn returns one row, the logit of the second class. Half of it for that class and
        # minus half for the other make the same probabilities under softmax.
        rows, intercepts = np.concatenate([-rows, rows]) / 2, np.concatenate([-intercepts, intercepts]) / 2
    kernel[:, present] = (rows / deviation).T
    bias[present] = intercepts - rows @ (mean / deviation)
    return OldHead(kernel.astype(np.float32), bias.astype(np.float32))


def old_correct(
    bench: Workbench,
    head: OldHead,
    depth: int,
    weights: Sequence[np.ndarray] | None,
    split: str,
    account: CostAccount,
) -> NDArray[np.bool_]:
    """Return whether each image (N,) of the old task's ``split`` is classified correctly.

    Args:
        bench: has the backbone and the old task.
        head: from features to scores of the old classes.
        depth: how many blocks have other weights than the pretrained ones, counted from the top.
        weights: of these blocks; more arrays may follow, such as those of a new head. None for the untouched backbone.
        split: ``train``, ``validation`` or ``test``.
        account: is charged with the computation.
    """
    old = bench.old_task
    labels, seen = np.asarray(old.split(split).labels), 0
    correct: list[NDArray[np.bool_]] = []
    blocks: Callable[[np.ndarray], Any] | None = None
    if depth and weights is not None:
        with BUILD_LOCK:
            suffix = trainable_copy(bench.backbone.parts(depth)[1], adapt=False, momentum=1.0)
            # The suffix comes first in a program's weights, the head after it.
            suffix.set_weights(weights[: len(suffix.weights)])
        blocks = _compiled(suffix)
    for chunk in old_activations(bench, split, depth if weights is not None else 0, account):
        features = np.asarray(chunk if blocks is None else blocks(chunk))
        predicted = head.scores(features).argmax(axis=1)
        correct.append(predicted == labels[seen : seen + len(predicted)])
        seen += len(predicted)
    return np.concatenate(correct)


def old_accuracy(
    bench: Workbench,
    head: OldHead,
    depth: int,
    weights: Sequence[np.ndarray] | None,
    split: str,
    account: CostAccount,
) -> float:
    """Return the share of images that :func:`old_correct` finds correct."""
    return float(old_correct(bench, head, depth, weights, split, account).mean())


def old_activations(bench: Workbench, split: str, depth: int, account: CostAccount) -> Iterator[np.ndarray]:
    """Yield activations of the old task's images below the top ``depth`` blocks, float32, in order and in chunks.

    If these blocks are the whole backbone the prefix only preprocesses: then nothing is kept in the cache.
    """
    old = bench.old_task
    stages, images = old.activations.stages, old.split(split).images
    if depth < stages.input_depth:
        yield from old.activations.chunks(split, depth, account)
        return
    prefix = _compiled(bench.backbone.parts(depth)[0])
    for piece in stages.chunk_slices(len(images)):
        yield np.asarray(prefix(images[piece]), np.float32)


def _compiled(model: Any) -> Callable[[np.ndarray], Any]:
    """Return ``model`` as a function of inputs (N, …) in inference mode, float32.

    It is traced under the lock on building graphs, because other trials of the process may trace at the same time.
    """
    with tracing():
        run = tf.function(
            lambda x: tf.cast(model(x, training=False), tf.float32), autograph=False
        ).get_concrete_function(tf.TensorSpec([None, *model.inputs[0].shape[1:]], tf.float32))
    return lambda inputs: run(tf.cast(inputs, tf.float32))
