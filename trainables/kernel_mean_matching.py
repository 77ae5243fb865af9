"""Kernel mean matching: weights that make the source's mean in a kernel's feature space the target's.

    min ½ wᵀKw − κᵀw   with 0 ≤ w ≤ B and |Σw − n_S| ≤ n_S ε

K holds the kernel between source images, κ_i = n_S / n_T Σ_j k(x_i, x_j) over target images j (Huang et al. 2006,
Correcting sample selection bias by unlabeled data). The kernel is k(x, y) = exp(−γ‖x − y‖²) on features over their
deviation. A large source is matched in blocks, each by itself (Miao et al. 2015, Ensemble kernel mean matching).
"""

from __future__ import annotations

import math

import numpy as np
import osqp
from scipy import sparse
from scipy.spatial.distance import cdist

BLOCK = 500
"""Source images that are matched together."""

MOST = 2000
"""Target images that stand for all of them."""

TOLERANCE = 1e-8


def matching_weights(source: np.ndarray, target: np.ndarray, clip: float) -> np.ndarray:
    """Weights (n_S,) float64 between 0 and ``clip`` (B) of the rows of ``source`` (n_S, D) for ``target`` (n_T, D)."""
    generator = np.random.default_rng(0)
    x, z = standardised(source, target)
    z = z if len(z) <= MOST else z[generator.choice(len(z), MOST, replace=False)]
    gamma = median_gamma(x, z)
    weights = np.zeros(len(x))
    for block in np.array_split(generator.permutation(len(x)), math.ceil(len(x) / BLOCK)):
        weights[block] = solve(*problem(x[block], z, gamma), clip)
    return weights


def standardised(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 over the deviation of all rows together; constant features are left as they are."""
    x, z = source.astype(np.float64), target.astype(np.float64)
    deviation = np.concatenate([x, z]).std(axis=0)
    deviation[deviation == 0] = 1.0
    return x / deviation, z / deviation


def median_gamma(source: np.ndarray, target: np.ndarray) -> float:
    """γ = 1 / (2 · median of squared distances) over at most 500 rows of each; 1 where all rows are the same."""
    generator = np.random.default_rng(1)
    rows = [a if len(a) <= 500 else a[generator.choice(len(a), 500, replace=False)] for a in (source, target)]
    together = np.concatenate(rows)
    distances = cdist(together, together, "sqeuclidean")[np.triu_indices(len(together), 1)]
    middle = float(np.median(distances)) if distances.size else 0.0
    return 1.0 / (2.0 * middle) if middle > 0 else 1.0


def problem(source: np.ndarray, target: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """K (n_S, n_S) and κ (n_S,)."""
    kernel = np.exp(-gamma * cdist(source, source, "sqeuclidean"))
    kappa = len(source) * np.exp(-gamma * cdist(source, target, "sqeuclidean")).mean(axis=1)
    return kernel, kappa


def solve(kernel: np.ndarray, kappa: np.ndarray, bound: float, epsilon: float | None = None) -> np.ndarray:
    """The weights (n_S,) that minimise the above; ε is (√n_S − 1) / √n_S unless it is given.

    Raises:
        ArithmeticError: the solver found none.
    """
    n = len(kappa)
    slack = (math.sqrt(n) - 1) / math.sqrt(n) if epsilon is None else epsilon
    lower = np.append(np.zeros(n), n * (1 - slack))
    upper = np.append(np.full(n, bound), n * (1 + slack))
    solver = osqp.OSQP()
    solver.setup(
        P=sparse.triu(sparse.csc_matrix(kernel), format="csc"),
        q=-kappa,
        A=sparse.csc_matrix(np.vstack([np.eye(n), np.ones(n)])),
        l=lower,
        u=upper,
        eps_abs=TOLERANCE,
        eps_rel=TOLERANCE,
        max_iter=20_000,
        polishing=True,
        adaptive_rho_interval=50,  # by iterations, not by time: the same weights every time
        verbose=False,
    )
    found = solver.solve(raise_error=False)
    if found.x is None or not np.isfinite(found.x).all():
        raise ArithmeticError(f"kernel mean matching: expected a solution, received {found.info.status!r}")
    return np.asarray(np.clip(found.x, 0.0, bound))
