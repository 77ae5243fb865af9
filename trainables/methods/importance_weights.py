"""How much likelier an image is in the target than in the source: the odds of a domain classifier.

A logistic regression tells target from source on frozen features x; then p_T(x) / p_S(x) = odds · n_S / n_T (Bickel et
al. 2007, Discriminative learning for differing training and test distributions). Each image is judged by a classifier
that has not seen it: one that has is too sure, most of all where there are fewer images than features.

Kernel mean matching: weights that make the source's mean in a kernel's feature space the target's.

    min ½ wᵀKw − κᵀw   with 0 ≤ w ≤ B and |Σw − n_S| ≤ n_S ε

K holds the kernel between source images, κ_i = n_S / n_T Σ_j k(x_i, x_j) over target images j (Huang et al. 2006,
Correcting sample selection bias by unlabeled data). The kernel is k(x, y) = exp(−γ‖x − y‖²) on features over their
deviation. A large source is matched in blocks, each by itself (Miao et al. 2015, Ensemble kernel mean matching).
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

KMM_BLOCK = 500
"""Source images that are matched together."""

MOST_MATCHED = 2000
"""Target images that stand for all of them."""

KMM_TOLERANCE = 1e-8


def kmm_weights(source: np.ndarray, target: np.ndarray, clip: float) -> np.ndarray:
    """Weights (n_S,) float64 between 0 and ``clip`` (B) of the rows of ``source`` (n_S, D) for ``target`` (n_T, D)."""
    generator = np.random.default_rng(0)
    x, z = standardised(source, target)
    z = z if len(z) <= MOST_MATCHED else z[generator.choice(len(z), MOST_MATCHED, replace=False)]
    gamma = median_gamma(x, z)
    weights = np.zeros(len(x))
    for block in np.array_split(generator.permutation(len(x)), math.ceil(len(x) / KMM_BLOCK)):
        weights[block] = solve_kmm(*kmm_problem(x[block], z, gamma), clip)
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


def kmm_problem(source: np.ndarray, target: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """K (n_S, n_S) and κ (n_S,)."""
    kernel = np.exp(-gamma * cdist(source, source, "sqeuclidean"))
    kappa = len(source) * np.exp(-gamma * cdist(source, target, "sqeuclidean")).mean(axis=1)
    return kernel, kappa


def solve_kmm(
    kernel: np.ndarray, kappa: np.ndarray, bound: float, epsilon: float | None = None
) -> np.ndarray:
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
        eps_abs=KMM_TOLERANCE,
        eps_rel=KMM_TOLERANCE,
        max_iter=20_000,
        polishing=True,
        adaptive_rho_interval=50,  # by iterations, not by time: the same weights every time
        verbose=False,
    )
    found = solver.solve(raise_error=False)
    if found.x is None or not np.isfinite(found.x).all():
        raise ArithmeticError(f"kernel mean matching: expected a solution, received {found.info.status!r}")
    return np.asarray(np.clip(found.x, 0.0, bound))


FOLDS = 5
MAX_FIT_ROWS = 5000
"""Images that one classifier is fitted to; more tell it little."""


def log_ratios(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """log p_T / p_S at each row of ``source``.

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
    """Weights (n,) with mean 1, in proportion to ratio^(1 / temperature) but for those above ``clip`` times the mean.

    A high temperature makes them equal.
    """
    return temper_weights(np.exp((log_ratio - log_ratio.max()) / temperature), 1.0, clip)


def temper_weights(weights: np.ndarray, temperature: float, clip: float) -> np.ndarray:
    """``weights`` ^ (1 / temperature), over their mean, clipped, and over the mean of that; equal ones if all are 0."""
    raised = np.asarray(weights, np.float64) ** (1.0 / temperature)
    if not raised.mean() > 0:
        return np.ones_like(raised)
    clipped = np.minimum(raised / raised.mean(), clip)
    return np.asarray(clipped / clipped.mean())


def _folds(y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to fit and rows to judge; where there are too few for folds, all of them both."""
    everything = np.arange(len(y))
    if np.bincount(y).min() < 2 * FOLDS:
        return [(everything, everything)]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(everything, y)
    return [(_sample(seen, y), judged) for seen, judged in folds]


def _sample(rows: np.ndarray, y: np.ndarray) -> np.ndarray:
    generator = np.random.default_rng(0)
    sides = [rows[y[rows] == side] for side in (0, 1)]
    return np.concatenate(
        [s if len(s) <= MAX_FIT_ROWS else generator.choice(s, MAX_FIT_ROWS, replace=False) for s in sides]
    )


def _fitted(x: np.ndarray, y: np.ndarray) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly separable: the penalty bounds the odds
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, tol=1e-7)).fit(x, y)
