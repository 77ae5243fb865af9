"""How well the nearest neighbours in feature space tell the class.

Leave-one-out, by cosine similarity, as is usual for features of networks (Wu et al., "Unsupervised Feature Learning via
Non-Parametric Instance Discrimination", CVPR 2018, https://arxiv.org/abs/1805.01978).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.errors import DataError
from trainables.transferability.samples import Codes, Matrix, as_classes, as_features

NEIGHBOURS = 5
BLOCK_BYTES = 32 * 2**20
"""Of similarities at a time."""

DECIMALS = 12
"""Of a similarity that count: beyond them is rounding, which would choose between samples that are the same."""


def knn_accuracy(features: Any, labels: Any, neighbours: int = NEIGHBOURS) -> float:
    """The share of samples that :func:`knn_correct` tells right, 0 to 1.

    Copies of images make it optimistic: they vote for each other.
    """
    return float(np.mean(knn_correct(features, labels, neighbours)))


def knn_correct(features: Any, labels: Any, neighbours: int = NEIGHBOURS) -> NDArray[np.bool_]:
    """(N,) whether a sample's class has most votes among its nearest neighbours, itself left out.

    Args:
        features: (N, D); a sample without any feature (all zero) is equally far from all.
        labels: (N,) classes. The only sample of its class can't be told right.
        neighbours: how many vote, at most N − 1 of them. Of classes with as many votes, that of the nearest one wins;
            of samples equally near, the first ones vote.
    """
    if neighbours < 1:
        raise DataError(f"neighbours: expected 1 or more, received {neighbours}")
    matrix = as_features(features)
    codes = as_classes(labels, len(matrix))
    return np.asarray(_told(_directions(matrix), codes, min(neighbours, len(matrix) - 1)) == codes)


def _directions(matrix: Matrix) -> Matrix:
    """Each row at length 1; rows of zeros stay."""
    largest = np.abs(matrix).max(axis=1, keepdims=True)
    safe = matrix / np.where(largest > 0, largest, 1.0)  # squares of the smallest numbers would vanish
    lengths = np.linalg.norm(safe, axis=1, keepdims=True)
    return safe / np.where(lengths > 0, lengths, 1.0)


def _told(directions: Matrix, codes: Codes, neighbours: int) -> Codes:
    count = len(directions)
    step = max(1, BLOCK_BYTES // (8 * count))
    told = np.empty(count, np.int64)
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count))
        similar = np.round(directions[rows] @ directions.T, DECIMALS)
        similar[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, :neighbours]
        told[rows] = _elected(codes[nearest], int(codes.max()) + 1)
    return told


def _elected(votes: NDArray[np.int64], classes: int) -> Codes:
    """The class with most of ``votes`` (B, k), the nearest first; among equals that of the nearest."""
    rows, k = np.arange(len(votes)), votes.shape[1]
    tally = np.zeros((len(votes), classes), np.int64)
    first = np.full((len(votes), classes), k, np.int64)
    for rank in reversed(range(k)):
        tally[rows, votes[:, rank]] += 1
        first[rows, votes[:, rank]] = rank
    return np.asarray((tally * (k + 1) - first).argmax(axis=1))
