"""Weights of source images by how likely they are under the target's distribution: two estimates of p_T(x) / p_S(x).

The odds of a domain classifier: a logistic regression tells target from source by the frozen features x; then
p_T(x) / p_S(x) = odds · n_S / n_T (Bickel et al. 2007, Discriminative learning for differing training and test
distributions).

Kernel mean matching: weights w under which the source has the target's mean in the feature space of a kernel:

    min ½ wᵀKw − κᵀw   with 0 ≤ w ≤ B and |Σw − n_S| ≤ n_S ε

K holds the kernel between source images, κ_i = n_S / n_T Σ_j k(x_i, x_j) over target images j (Huang et al. 2006,
Correcting sample selection bias by unlabeled data). The kernel is k(x, y) = exp(−γ‖x − y‖²) on features divided by
their deviation.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import osqp
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5
"""Folds of cross-fitting, so that each image is judged by a classifier that has not seen it."""

MAX_FIT_ROWS = 5000
"""Images of each domain that one classifier is fitted to; more of them hardly change it."""

KMM_BLOCK = 500
"""Source images that are matched together. A quadratic programme of all of them would take memory and time of higher
order (Miao et al. 2015, Ensemble kernel mean matching)."""

KMM_MAX_TARGETS = 2000
"""Target images, drawn at random, that represent all of them."""

KMM_TOLERANCE = 1e-8
"""Absolute and relative tolerance of the solver."""


def kmm_weights(source: np.ndarray, target: np.ndarray, clip: float) -> np.ndarray:
    """Return the weights of kernel mean matching, (n_S,) float64 between 0 and ``clip``.

    Args:
        source: (n_S, D) features.
        target: (n_T, D) features.
        clip: B, the largest weight.

    Raises:
        ArithmeticError: the solver finds no solution.
    """
    generator = np.random.default_rng(0)
    x, z = standardised(source, target)
    z = z if len(z) <= KMM_MAX_TARGETS else z[generator.choice(len(z), KMM_MAX_TARGETS, replace=False)]
    gamma = median_gamma(x, z)
    weights = np.zeros(len(x))
    for block in np.array_split(generator.permutation(len(x)), math.ceil(len(x) / KMM_BLOCK)):
        weights[block] = solve_kmm(*kmm_problem(x[block], z, gamma), clip)
    return weights


def standardised(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float64, divided by the deviation of all rows together; constant features stay as they are."""
    x, z = source.astype(np.float64), target.astype(np.float64)
    deviation = np.concatenate([x, z]).std(axis=0)
    deviation[deviation == 0] = 1.0
    return x / deviation, z / deviation


def median_gamma(source: np.ndarray, target: np.ndarray) -> float:
    """Return γ = 1 / (2 · median of the squared distances) over at most 500 rows of each; 1 if all rows are equal."""
    generator = np.random.default_rng(1)
    rows = [a if len(a) <= 500 else a[generator.choice(len(a), 500, replace=False)] for a in (source, target)]
    together = np.concatenate(rows)
    distances = cdist(together, together, "sqeuclidean")[np.triu_indices(len(together), 1)]
    middle = float(np.median(distances)) if distances.size else 0.0
    return 1.0 / (2.0 * middle) if middle > 0 else 1.0


def kmm_problem(source: np.ndarray, target: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return K (n_S, n_S) and κ (n_S,)."""
    kernel = np.exp(-gamma * cdist(source, source, "sqeuclidean"))
    kappa = len(source) * np.exp(-gamma * cdist(source, target, "sqeuclidean")).mean(axis=1)
    return kernel, kappa


def solve_kmm(
    kernel: np.ndarray, kappa: np.ndarray, bound: float, epsilon: float | None = None
) -> np.ndarray:
    """Return the weights w (n_S,) of the quadratic programme above.

    Args:
        kernel: K, (n_S, n_S).
        kappa: κ, (n_S,).
        bound: B.
        epsilon: ε; (√n_S − 1) / √n_S if None, as in the paper.

    Raises:
        ArithmeticError: the solver finds no solution.
    """
    n = len(kappa)
    slack = (math.sqrt(n) - 1) / math.sqrt(n) if epsilon is None else epsilon
    lower = np.append(np.zeros(n), n * (1 - slack))
    upper = np.append(np.full(n, bound), n * (1 + slack))
    solver = osqp.OSQP()
    solver.setup(
        # OSQP reads the upper triangle of the symmetric matrix only.
        P=sparse.triu(sparse.csc_matrix(kernel), format="csc"),
        q=-kappa,
        A=sparse.csc_matrix(np.vstack([np.eye(n), np.ones(n)])),
        l=lower,
        u=upper,
        eps_abs=KMM_TOLERANCE,
        eps_rel=KMM_TOLERANCE,
        max_iter=20_000,
        polishing=True,
        adaptive_rho_interval=50,  # counted in iterations: by time, the weights would depend on the machine's load
        verbose=False,
    )
    # A solution of reduced accuracy is good enough for weights; only a missing one is an error.
    found = solver.solve(raise_error=False)
    if found.x is None or not np.isfinite(found.x).all():
        raise ArithmeticError(f"kernel mean matching: expected a solution, received {found.info.status!r}")
    return np.asarray(np.clip(found.x, 0.0, bound))


def log_ratios(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return log p_T / p_S at each row of ``source``, by the odds of a domain classifier.

    Each row is judged by a classifier that was fitted without it. One that has seen it is too confident, above all if
    there are fewer images than features.

    Args:
        source: (n_S, D) features of any float type.
        target: (n_T, D).

    Returns:
        (n_S,) float64.
    """
    x = np.concatenate([source, target]).astype(np.float64)
    y = np.repeat([0, 1], [len(source), len(target)])
    logits = np.zeros(len(x))
    for seen, judged in _folds(y):
        counts = np.bincount(y[seen], minlength=2)
        logits[judged] = _fitted(x[seen], y[seen]).decision_function(x[judged]) + np.log(
            counts[0] / counts[1]
        )
    return logits[: len(source)]


def importance_weights(log_ratio: np.ndarray, temperature: float, clip: float) -> np.ndarray:
    """Return weights (n,) with mean 1, proportional to ratio^(1 / temperature) and clipped (:func:`temper_weights`).

    Args:
        log_ratio: (n,) log p_T / p_S.
        temperature: above 0; a high one makes the weights equal.
        clip: largest weight as a multiple of the mean, at least 1.
    """
    # The largest ratio becomes 1, so that exp cannot overflow; the weights are normalised anyway.
    return temper_weights(np.exp((log_ratio - log_ratio.max()) / temperature), 1.0, clip)


def temper_weights(weights: np.ndarray, temperature: float, clip: float) -> np.ndarray:
    """Return ``weights`` ^ (1 / temperature), scaled to mean 1, clipped at ``clip`` and scaled to mean 1 again.

    If all weights are 0, the result is all ones.
    """
    raised = np.asarray(weights, np.float64) ** (1.0 / temperature)
    if not raised.mean() > 0:
        return np.ones_like(raised)
    clipped = np.minimum(raised / raised.mean(), clip)
    return np.asarray(clipped / clipped.mean())


def _folds(y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (rows to fit, rows to judge) of each fold; with too few images for folds, all rows are both."""
    everything = np.arange(len(y))
    if np.bincount(y).min() < 2 * FOLDS:
        return [(everything, everything)]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(everything, y)
    return [(_sample(seen, y), judged) for seen, judged in folds]


def _sample(rows: np.ndarray, y: np.ndarray) -> np.ndarray:
    """At most MAX_FIT_ROWS of the rows of each domain."""
    generator = np.random.default_rng(0)
    sides = [rows[y[rows] == side] for side in (0, 1)]
    return np.concatenate(
        [s if len(s) <= MAX_FIT_ROWS else generator.choice(s, MAX_FIT_ROWS, replace=False) for s in sides]
    )


def _fitted(x: np.ndarray, y: np.ndarray) -> LogisticRegression:
    with warnings.catch_warnings():
        # Domains that are nearly separable converge slowly; the penalty of the regression still bounds the odds.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, tol=1e-7)).fit(x, y)
