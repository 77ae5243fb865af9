"""Maximum mean discrepancy: tests whether source and target images look the same to a backbone.

Gretton et al., "A Kernel Two-Sample Test", JMLR 2012: the unbiased estimator of MMD² (eq. 3) with the Gaussian kernel
exp(−d² / 2h²), where h is the median distance of two samples, and a p-value from permutations of the set membership
(Phipson and Smyth 2010: the observed order counts as one permutation, so that p is never 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import pdist, squareform

from trainables.errors import DataError
from trainables.transferability.samples import Matrix, as_features

PERMUTATIONS = 500
ROUNDING_TOLERANCE = 1e-12


@dataclass(frozen=True)
class MMDResult:
    """Result of :func:`mmd_test`.

    Attributes:
        squared: MMD², below 1; around 0 (or slightly negative) for sets of the same distribution.
        p_value: share of the permutations with an equal or larger MMD².
        bandwidth: h of the kernel.
        permutations: number of permutations.
    """

    squared: float
    p_value: float
    bandwidth: float
    permutations: int


def mmd_test(source: Any, target: Any, permutations: int = PERMUTATIONS, seed: int = 0) -> MMDResult:
    """Test whether two sets of features come from the same distribution.

    Args:
        source: (n, D), n ≥ 2.
        target: (m, D), m ≥ 2.
        permutations: number of permutations; p is at least 1 / (permutations + 1).
        seed: seed of the permutations.

    Raises:
        DataError: the shapes are wrong, ``permutations`` is below 1, or values are not finite.
    """
    x, y = as_features(source, "source"), as_features(target, "target")
    if x.shape[1] != y.shape[1]:
        raise DataError(f"target: expected {x.shape[1]} features as in source, received {y.shape[1]}")
    if permutations < 1:
        raise DataError(f"permutations: expected 1 or more, received {permutations}")
    distances = pdist(np.concatenate([x, y]), "sqeuclidean")
    bandwidth = _bandwidth(distances)
    if bandwidth == 0.0:
        return MMDResult(0.0, 1.0, 0.0, permutations)  # all samples are the same
    kernel = squareform(np.exp(-distances / (2 * bandwidth**2)))  # with zeros on the diagonal
    found = _discrepancies(kernel, _memberships(len(x), len(kernel), permutations, seed))
    extreme = int(np.count_nonzero(found[1:] >= found[0] - ROUNDING_TOLERANCE))
    return MMDResult(float(found[0]), (1 + extreme) / (1 + permutations), bandwidth, permutations)


def _bandwidth(distances: Matrix) -> float:
    """Return the median distance; the median of the positive ones if it is 0; 0 if all samples are the same."""
    median = float(np.median(distances))
    if median > 0:
        return float(np.sqrt(median))
    some = distances[distances > 0]
    return float(np.sqrt(np.median(some))) if len(some) else 0.0


def _memberships(first: int, count: int, permutations: int, seed: int) -> Matrix:
    """Return (count, 1 + permutations): 1 for samples of the first set, as observed and then permuted."""
    observed = (np.arange(count) < first).astype(np.float64)
    rng = np.random.default_rng(seed)
    return np.column_stack([observed, *(rng.permutation(observed) for _ in range(permutations))])


def _discrepancies(kernel: Matrix, members: Matrix) -> Matrix:
    """Return the unbiased MMD² for each column of ``members``; the diagonal of ``kernel`` is zero."""
    count, n = len(kernel), float(members[:, 0].sum())
    m = count - n
    rows = kernel.sum(axis=1) @ members
    within = np.sum(members * (kernel @ members), axis=0)
    across, others = rows - within, kernel.sum() - 2 * rows + within
    return np.asarray(within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * across / (n * m))
