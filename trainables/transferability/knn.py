"""k-nearest neighbours: measures how often the nearest neighbours in feature space have the same class.

Leave-one-out with cosine similarity, as is usual for features of networks (Wu et al., "Unsupervised Feature Learning
via Non-Parametric Instance Discrimination", CVPR 2018, https://arxiv.org/abs/1805.01978).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.errors import DataError
from trainables.transferability.samples import Codes, Matrix, as_classes, as_features

NEIGHBOURS = 5
BLOCK_BYTES = 32 * 2**20
"""Bytes of similarities that are computed at a time."""

DECIMALS = 12
"""Decimals of a similarity that count. Further ones are rounding errors, which would order identical samples."""


def knn_accuracy(features: Any, labels: Any, neighbours: int = NEIGHBOURS) -> float:
    """Return the share of samples that :func:`knn_correct` classifies correctly, 0 to 1.

    Duplicate images make it optimistic, because they vote for each other.
    """
    return float(np.mean(knn_correct(features, labels, neighbours)))


def knn_correct(features: Any, labels: Any, neighbours: int = NEIGHBOURS) -> NDArray[np.bool_]:
    """Return (N,) whether the class of a sample has most votes among its nearest neighbours without itself.

    Args:
        features: (N, D). A sample whose features are all zero is equally far from all others.
        labels: (N,) classes. The only sample of a class is never classified correctly.
        neighbours: number of voters, at most N − 1. Among classes with equally many votes the class of the nearest
            voter wins; of equally near samples the first ones vote.

    Raises:
        DataError: ``neighbours`` is below 1, the shapes are wrong, or values are not finite.
    """
    if neighbours < 1:
        raise DataError(f"neighbours: expected 1 or more, received {neighbours}")
    matrix = as_features(features)
    codes = as_classes(labels, len(matrix))
    return np.asarray(_predicted(_directions(matrix), codes, min(neighbours, len(matrix) - 1)) == codes)


def _directions(matrix: Matrix) -> Matrix:
    """Scale each row to length 1; rows of zeros stay as they are."""
    largest = np.abs(matrix).max(axis=1, keepdims=True)
    safe = matrix / np.where(largest > 0, largest, 1.0)  # otherwise squares of very small numbers are 0
    lengths = np.linalg.norm(safe, axis=1, keepdims=True)
    return safe / np.where(lengths > 0, lengths, 1.0)


def _predicted(directions: Matrix, codes: Codes, neighbours: int) -> Codes:
    count = len(directions)
    step = max(1, BLOCK_BYTES // (8 * count))
    predicted = np.empty(count, np.int64)
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count))
        similar = np.round(directions[rows] @ directions.T, DECIMALS)
        similar[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, :neighbours]
        predicted[rows] = _majority_class(codes[nearest], int(codes.max()) + 1)
    return predicted


def _majority_class(votes: NDArray[np.int64], classes: int) -> Codes:
    """Return the class with most ``votes`` (B, k), which are sorted by distance; the nearest decides ties."""
    rows, k = np.arange(len(votes)), votes.shape[1]
    tally = np.zeros((len(votes), classes), np.int64)
    first = np.full((len(votes), classes), k, np.int64)
    for rank in reversed(range(k)):
        tally[rows, votes[:, rank]] += 1
        first[rows, votes[:, rank]] = rank
    # A rank is at most k, so one vote more outweighs any rank, and ranks decide between equal numbers of
    # votes.
    return np.asarray((tally * (k + 1) - first).argmax(axis=1))
