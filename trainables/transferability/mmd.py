"""Maximum mean discrepancy: whether source and target images look the same to a backbone.

Gretton et al., "A Kernel Two-Sample Test", JMLR 2012: the estimator of MMD² without bias (eq. 3) under a Gaussian
kernel exp(−d² / 2h²), with h the median distance of two samples, and a p-value by permuting which sample is of which
set (Phipson and Smyth 2010: the observed order counts as one of the permutations, so that p is never 0).
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
    """``squared`` is MMD², 0 or a little less for sets of one distribution, below 1; ``bandwidth`` is h."""

    squared: float
    p_value: float
    bandwidth: float
    permutations: int


def mmd_test(source: Any, target: Any, permutations: int = PERMUTATIONS, seed: int = 0) -> MMDResult:
    """How far apart two sets of features are, and how often chance alone would part them as far.

    Args:
        source: (n, D), n ≥ 2.
        target: (m, D), m ≥ 2.
        permutations: how many are drawn; p is at least 1 / (permutations + 1).
        seed: of the draws.
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
    """The median distance; that of the pairs that differ, where most do not; 0 where none does."""
    median = float(np.median(distances))
    if median > 0:
        return float(np.sqrt(median))
    some = distances[distances > 0]
    return float(np.sqrt(np.median(some))) if len(some) else 0.0


def _memberships(first: int, count: int, permutations: int, seed: int) -> Matrix:
    """(count, 1 + permutations): 1 for the samples of the first set, as they are and then permuted."""
    observed = (np.arange(count) < first).astype(np.float64)
    rng = np.random.default_rng(seed)
    return np.column_stack([observed, *(rng.permutation(observed) for _ in range(permutations))])


def _discrepancies(kernel: Matrix, members: Matrix) -> Matrix:
    """MMD² without bias for each column of ``members``; ``kernel`` has zeros on its diagonal."""
    count, n = len(kernel), float(members[:, 0].sum())
    m = count - n
    rows = kernel.sum(axis=1) @ members
    within = np.sum(members * (kernel @ members), axis=0)
    across, others = rows - within, kernel.sum() - 2 * rows + within
    return np.asarray(within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * across / (n * m))
