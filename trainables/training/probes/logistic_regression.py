"""Fits a regularised multinomial logistic regression to features, and chooses its penalty by cross-validation.

It minimises the mean cross-entropy plus λ/2 · ‖W‖², where W is the kernel for standardised features. λ comes from
:data:`PENALTIES`: each is tried in stratified cross-validation on the training images, from the strongest to the
weakest, and each fit starts from the last one. The penalty with the lowest cross-entropy wins.

L-BFGS solves it, as in scikit-learn's ``LogisticRegression`` with C = 1 / (λ N), of whose solution this is the same
within the tolerance. That class computes in float64, which takes several times as long.

Two things bound the time. With fewer images than features the solver works in the span of the images, which does not
change the solution, because the optimal kernel has no part outside of that span. Where images, features and classes are
many, penalties are compared on the leading principal components, with fewer folds, and then on a sample of the images.
All of that follows from the sizes alone, so the result never depends on the speed of the machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.errors import Diverged
from trainables.training.probes.blas_threads import one_blas_thread

PENALTIES = tuple(10.0 ** (exponent / 2) for exponent in range(2, -13, -1))
"""Values of λ, the strongest first."""

DEFAULT_PENALTY = 1e-2
"""λ if cross-validation is impossible, because no class has two images."""

MAX_FOLDS, MIN_FOLDS = 5, 2

WORSE_IN_A_ROW = 3
"""So many penalties in a row that are worse than the best one end the search for weaker ones."""

MAX_WORK = 2e11
"""Multiplications that cross-validation, and then the final fit, may take. One core does them in about ten seconds."""

SEARCH_WIDTH = 256
"""Principal components on which penalties are compared; with fewer features all of them."""

PATH_ITERATIONS = 200
"""Iterations that the fits of one fold take together, about."""

MAX_ITERATIONS, MIN_ITERATIONS = 300, 20
"""Iterations of the solver for one fit; the final fit has fewer than the maximum where they exceed MAX_WORK."""

TOLERANCE = 0.01
"""Largest component of the gradient at which the solver stops, multiplied by the number of classes."""

MIN_DEVIATION = 1e-3
"""Features that vary less than this share of the typical feature are scaled as if they varied so much.

Divided by their own deviation, features that are zero for nearly all images would weigh as much as the others.
"""

RELATIVE_PRECISION = 1e-7
"""Of float32, in which the products are computed."""

SMALLEST_VARIANCE = 1e-6
"""Directions with less than this share of the variance of the first principal component are left out."""

_SEED = 0x10617


@dataclass(frozen=True)
class CrossValidated:
    """What cross-validation found for one penalty.

    Attributes:
        penalty: λ.
        accuracy: share of the held-out images that are classified correctly.
        loss: their mean cross-entropy.
    """

    penalty: float
    accuracy: float
    loss: float


@dataclass(frozen=True)
class FittedRegression:
    """A fitted regression: softmax(features @ kernel + bias) are the probabilities.

    Attributes:
        kernel: (C, K) float32.
        bias: (K,) float32.
        penalty: the chosen λ.
        scores: what cross-validation found for each penalty that was tried; empty if it was impossible.
    """

    kernel: np.ndarray
    bias: np.ndarray
    penalty: float
    scores: tuple[CrossValidated, ...]

    @property
    def best(self) -> CrossValidated | None:
        """What cross-validation found for the chosen penalty."""
        return next((score for score in self.scores if score.penalty == self.penalty), None)


def fit_logistic_regression(
    features: np.ndarray, labels: np.ndarray, classes: int, views: tuple[np.ndarray, ...] = ()
) -> FittedRegression:
    """Fit a regression and choose its penalty.

    Args:
        features: (N, C) of the training images.
        labels: (N,) integers below ``classes``. A class without images is never predicted for a training image.
        classes: number of classes K.
        views: features (N, C) of augmented versions of the same images, on which the regression is fitted as well.
            Held-out images are classified without augmentation.

    Raises:
        Diverged: a feature is not a finite number.
    """
    # The threads of BLAS wait for each other actively. While another trial trains, that takes ten times as long as one
    # thread does.
    with one_blas_thread():
        data = _Data.of(features, np.asarray(labels, np.int64), views)
        scores = _cross_validate(data) if len(data.present) > 1 else []
        penalty = min(scores, key=lambda score: score.loss).penalty if scores else DEFAULT_PENALTY
        kernel, bias = _fold_scaling(data, _final_fit(data, penalty), classes)
    return FittedRegression(kernel, bias, penalty, tuple(scores))


@dataclass(frozen=True)
class _Data:
    """Standardised images in the coordinates in which the solver works.

    Attributes:
        images: (V + 1, N, R) float32, the images as they are, then V augmented versions.
        targets: (N,) indices into ``present``.
        present: (P,) the classes that have images.
        mean: (C,) of the features.
        scale: (C,) by which features are divided.
        basis: (C, R) with orthonormal columns, from the solver's coordinates to standardised features, those of the
            largest variance first.
    """

    images: NDArray[np.float32]
    targets: NDArray[np.int64]
    present: NDArray[np.int64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    basis: NDArray[np.float64]

    @classmethod
    def of(cls, features: np.ndarray, labels: np.ndarray, views: tuple[np.ndarray, ...]) -> _Data:
        stacked = np.stack([features, *views]).astype(np.float32)
        if not np.isfinite(stacked).all():
            raise Diverged("linear probe: expected features that are finite numbers, received others")
        versions, count, width = stacked.shape
        flat = stacked.reshape(-1, width)
        mean, deviation = flat.mean(axis=0, dtype=np.float64), flat.std(axis=0, dtype=np.float64)
        typical = float(np.sqrt(np.mean(deviation**2)))
        scale = np.maximum(deviation, MIN_DEVIATION * typical) if typical > 0 else np.ones(width)
        flat = (flat - mean.astype(np.float32)) / scale.astype(np.float32)
        # The eigenvectors of the smaller of both products; without variance a direction cannot help.
        small = flat @ flat.T if len(flat) < width else flat.T @ flat
        variances, vectors = np.linalg.eigh(small.astype(np.float64))
        variances = np.maximum(variances, np.finfo(np.float64).tiny)
        kept = variances >= variances[-1] * SMALLEST_VARIANCE
        variances, vectors = variances[kept][::-1], vectors[:, kept][:, ::-1]
        basis = flat.T @ vectors / np.sqrt(variances) if len(flat) < width else vectors
        flat = flat @ basis.astype(np.float32)
        present, targets = np.unique(labels, return_inverse=True)
        images = np.ascontiguousarray(flat.reshape(versions, count, -1), np.float32)
        return cls(images, targets, present, mean, scale, basis)

    def rows(self, chosen: NDArray[np.int64], width: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the first ``width`` coordinates of all versions of the chosen images, and their targets."""
        x = np.ascontiguousarray(self.images[:, chosen, :width])
        return x.reshape(-1, width), np.tile(self.targets[chosen], len(self.images))

    @property
    def search_width(self) -> int:
        """Number of coordinates on which penalties are compared."""
        return min(SEARCH_WIDTH, int(self.images.shape[2]))


def _cross_validate(data: _Data) -> list[CrossValidated]:
    """Return the scores of the penalties that were tried; none if no class has two images."""
    sampled, folds = _plan(data)
    parts = fold_numbers(data.targets[sampled], folds)
    paths = [
        _penalty_path(data, sampled[parts != number], sampled[parts == number]) for number in range(folds)
    ]
    scores: list[CrossValidated] = []
    for penalty, *results in zip(PENALTIES, *paths, strict=False):
        losses, correct = (np.concatenate(column) for column in zip(*results, strict=True))
        if not len(losses):
            return []
        scores.append(CrossValidated(penalty, float(correct.mean()), float(losses.mean())))
        best = min(range(len(scores)), key=lambda index: scores[index].loss)
        if len(scores) - 1 - best >= WORSE_IN_A_ROW:
            break
    return scores


def _plan(data: _Data) -> tuple[NDArray[np.int64], int]:
    """Return the images (n,) that cross-validation uses, and the number of folds, so that the work is bounded."""
    versions, count, _ = data.images.shape
    folds = max(MIN_FOLDS, min(MAX_FOLDS, count))
    # Scores and gradient take one product each.
    work = 2.0 * versions * max(1, data.search_width) * len(data.present) * PATH_ITERATIONS
    while folds > MIN_FOLDS and (folds - 1) * count * work > MAX_WORK:
        folds -= 1
    affordable = max(2 * len(data.present), int(MAX_WORK / ((folds - 1) * work)))
    # One part of several that have equal shares of all classes.
    parts = fold_numbers(data.targets, max(1, math.ceil(count / affordable)))
    return np.flatnonzero(parts == 0), folds


def fold_numbers(targets: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """Return the fold (n,) of each image: the images of each class are spread evenly, and so are all images."""
    shuffled = np.random.default_rng(_SEED).permutation(len(targets))
    by_class = shuffled[np.argsort(targets[shuffled], kind="stable")]
    numbers = np.empty(len(targets), np.int64)
    # Dealt out in turn through all classes: a class that has fewer images than folds does not always begin at fold 0.
    numbers[by_class] = np.arange(len(targets)) % folds
    return numbers


def _penalty_path(
    data: _Data, training: NDArray[np.int64], held_out: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Yield for each penalty the cross-entropy of each held-out image, and whether it is classified correctly.

    Images of classes that no training image has are left out: no penalty could predict them.
    """
    known = np.unique(data.targets[training])
    judged = held_out[np.isin(data.targets[held_out], known)]
    x, y = data.rows(training, data.search_width)
    truth = data.targets[judged]
    weights: NDArray[np.float64] | None = None
    for penalty in PENALTIES:
        if len(known) < 2 or not len(judged):
            yield np.zeros(len(judged)), np.ones(len(judged), np.bool_)
            continue
        weights = _solve(x, y, known, penalty, weights, MAX_ITERATIONS)
        scores = data.images[0, judged, : data.search_width] @ weights[:, :-1].T + weights[:, -1]
        scores -= scores.max(axis=1, keepdims=True)
        right = np.searchsorted(known, truth)
        losses = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(truth)), right]
        yield losses, scores.argmax(axis=1) == right


def _final_fit(data: _Data, penalty: float) -> NDArray[np.float64]:
    """Return kernel and bias (P, R + 1) of a fit to all images."""
    count, width = len(data.present), data.images.shape[2]
    if count == 1:
        return np.zeros((1, width + 1))
    everything = np.arange(len(data.targets))
    known, weights = np.arange(count), None
    # First on the leading components, which costs little, then from there on all: most of the way is done by then.
    for used in sorted({data.search_width, width}):
        x, y = data.rows(everything, used)
        if weights is not None:
            weights = np.insert(weights, [weights.shape[1] - 1] * (used + 1 - weights.shape[1]), 0.0, axis=1)
        affordable = int(MAX_WORK / (2.0 * x.size * count))
        iterations = min(MAX_ITERATIONS, max(MIN_ITERATIONS, affordable))
        weights = _solve(x, y, known, penalty, weights, iterations)
    return weights if weights is not None else np.zeros((count, width + 1))


def _solve(
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    known: NDArray[np.int64],
    penalty: float,
    start: NDArray[np.float64] | None,
    iterations: int,
) -> NDArray[np.float64]:
    """Return kernel and bias (P, R + 1) of the classes ``known``, by L-BFGS from ``start``."""
    from scipy.optimize import minimize

    count, rows = len(known), np.arange(len(x))
    truth = np.searchsorted(known, y)

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(count, -1)
        kernel = weights[:, :-1].astype(np.float32)
        scores = x @ kernel.T + weights[:, -1].astype(np.float32)
        scores -= scores.max(axis=1, keepdims=True)
        own = scores[rows, truth].astype(np.float64)
        np.exp(scores, out=scores)
        totals = scores.sum(axis=1, keepdims=True)
        loss = float((np.log(totals[:, 0].astype(np.float64)) - own).mean())
        scores /= totals * len(x)
        scores[rows, truth] -= np.float32(1 / len(x))
        gradient = np.empty_like(weights)
        gradient[:, :-1] = scores.T @ x
        gradient[:, :-1] += penalty * weights[:, :-1]
        gradient[:, -1] = scores.sum(axis=0)
        return loss + 0.5 * penalty * float((weights[:, :-1] ** 2).sum()), gradient.ravel()

    first = np.zeros((count, x.shape[1] + 1)) if start is None else start
    options = {"maxiter": iterations, "gtol": TOLERANCE / count, "ftol": RELATIVE_PRECISION}
    found = minimize(objective, first.ravel(), jac=True, method="L-BFGS-B", options=options).x
    if not np.isfinite(found).all():
        raise Diverged("linear probe: the logistic regression has no finite solution")
    return np.asarray(found.reshape(count, -1))


def _fold_scaling(
    data: _Data, weights: NDArray[np.float64], classes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return kernel (C, K) and bias (K,) for features as they are."""
    rows = weights[:, :-1] @ data.basis.T
    kernel = np.zeros((len(data.mean), classes))
    kernel[:, data.present] = (rows / data.scale).T
    bias = np.zeros(classes)
    bias[data.present] = weights[:, -1] - rows @ (data.mean / data.scale)
    absent = np.setdiff1d(np.arange(classes), data.present)
    if len(absent):
        # Below every score of a training image, yet not so far that the loss of such an image would drown all others.
        scores = data.images[0] @ weights[:, :-1].T + weights[:, -1]
        bias[absent] = float(scores.min()) - math.log(len(scores) + 1)
    return kernel.astype(np.float32), bias.astype(np.float32)
