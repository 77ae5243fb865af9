"""Converts features and labels to what the scores need: float64, finite, classes numbered from 0 without gaps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.errors import DataError

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]

MIN_VARIANCE_SHARE = 1e-24
"""Share of the squared features that their variance must exceed; less is the rounding error of constants."""


def as_features(features: Any, name: str = "features", min_samples: int = 2) -> Matrix:
    """Convert ``features`` (N, D) of any numeric type to float64.

    Raises:
        DataError: the shape is wrong, there are fewer than ``min_samples`` samples or no features, or values are not
            finite.
    """
    array = np.asarray(features)
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise DataError(f"{name}: expected numbers of shape (N, D), received {array.dtype} {array.shape}")
    if len(array) < min_samples or not array.shape[1]:
        raise DataError(
            f"{name}: expected {min_samples} samples or more with features, received {array.shape}"
        )
    matrix = array.astype(np.float64)
    finite = np.isfinite(matrix)
    if not finite.all():
        raise DataError(
            f"{name}: expected finite numbers, received {np.count_nonzero(~finite):,} of {matrix.size:,} "
            "that are NaN or infinite"
        )
    return matrix


def as_classes(labels: Any, count: int, name: str = "labels", min_classes: int = 2) -> Codes:
    """Convert ``labels`` (N,) to the numbers 0 to K − 1 of the classes that occur.

    Raises:
        DataError: there are not ``count`` labels, or fewer than ``min_classes`` classes.
    """
    array = np.asarray(labels)
    if array.shape != (count,) or array.dtype.kind not in "iubU":
        raise DataError(
            f"{name}: expected whole numbers or names of shape ({count},), received {array.dtype} {array.shape}"
        )
    present, codes = np.unique(array, return_inverse=True)
    if len(present) < min_classes:
        raise DataError(f"{name}: expected {min_classes} classes or more, received {len(present)}")
    return codes.astype(np.int64).reshape(-1)


def one_hot(codes: Codes) -> Matrix:
    """Convert class numbers (N,) to indicators (N, K)."""
    return np.eye(int(codes.max()) + 1)[codes]


def centred(matrix: Matrix) -> Matrix | None:
    """Subtract the mean from ``matrix`` (N, D); None if all samples are the same except for rounding."""
    moved = matrix - matrix.mean(axis=0)
    return moved if float(np.sum(moved**2)) > MIN_VARIANCE_SHARE * float(np.sum(matrix**2)) else None
