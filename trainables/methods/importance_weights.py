"""How much likelier an image is in the target than in the source: the odds of a domain classifier.

A logistic regression tells target from source on frozen features x; then p_T(x) / p_S(x) = odds · n_S / n_T (Bickel et
al. 2007, Discriminative learning for differing training and test distributions). Each image is judged by a classifier
that has not seen it: one that has is too sure, most of all where there are fewer images than features.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5
MOST = 5000
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


def likeness_weights(log_ratio: np.ndarray, temperature: float, clip: float) -> np.ndarray:
    """Weights (n,) with mean 1, in proportion to ratio^(1 / temperature) but for those above ``clip`` times the mean.

    A high temperature makes them equal.
    """
    return tempered(np.exp((log_ratio - log_ratio.max()) / temperature), 1.0, clip)


def tempered(weights: np.ndarray, temperature: float, clip: float) -> np.ndarray:
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
    return np.concatenate([s if len(s) <= MOST else generator.choice(s, MOST, replace=False) for s in sides])


def _fitted(x: np.ndarray, y: np.ndarray) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly separable: the penalty bounds the odds
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, tol=1e-7)).fit(x, y)
