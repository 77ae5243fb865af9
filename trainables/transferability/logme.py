"""LogME: the evidence of a Bayesian linear model from features to labels.

You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021,
https://arxiv.org/abs/2102.11005. Symbols: F features (n, D), y the indicator of a class (n,), α the precision of the
weights, β that of the noise. Their model w ~ N(0, α⁻¹ I), y ~ N(F w, β⁻¹ I) has the evidence of

    y ~ N(0, β⁻¹ I + α⁻¹ F Fᵀ),

in which log |A| = Σᵢ log(α + β σᵢ²) + (D − k) log α over the k singular values of F. The published code omits the
second term for n < D and thereby adds (D − k)/2 · log α to the score. This implementation includes it.

The paper's fixed-point iteration finds a stationary point. With the ratio r = α/β the best β is known in closed form,
so that a search along one line finds the largest evidence instead:

    β⁻¹ = (1/n) [‖y‖² − ‖z‖² + Σᵢ zᵢ² r / (r + σᵢ²)],  z = Uᵀ y.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from trainables.transferability.samples import Matrix, as_classes, as_features, one_hot
from trainables.transferability.spectrum import spectrum

MIN_RATIO = 2.0**-22
"""Smallest r relative to the largest σ²: the square of the precision of float16 (11 bits), in which features are kept.

The evidence of labels that the features determine exactly is unbounded without noise; this bounds it."""

GRID_POINTS = 64
"""Number of ratios that are tried before the best one is refined."""


def logme(features: Any, labels: Any) -> float:
    """Return the log evidence per sample and class; greater is better.

    Args:
        features: (n, D), neither centred nor scaled.
        labels: (n,) classes; classes without samples do not count.

    Returns:
        A number that compares features for the same task and the same n.

    Raises:
        DataError: the shapes are wrong, there are fewer than two samples or classes, or values are not finite.
    """
    matrix = as_features(features)
    codes = as_classes(labels, len(matrix))
    return float(np.mean(class_evidences(matrix, one_hot(codes))) / len(matrix))


def class_evidences(matrix: Matrix, targets: Matrix) -> Matrix:
    """Return the largest log evidence of each column of ``targets`` (n, K) under ``matrix`` (n, D): (K,)."""
    found = spectrum(matrix)
    projected = (found.left.T @ targets) ** 2
    # Rounding may make the difference slightly negative.
    rest = np.maximum((targets**2).sum(axis=0) - projected.sum(axis=0), 0.0)
    # A factor of the features changes σ² and the best r alike, so with a largest σ² of 1 one range of r
    # serves all features.
    scaled = found.squares / found.squares[0] if len(found.squares) else found.squares
    lines = zip(projected.T, rest, strict=True)
    return np.array([_max_evidence(scaled, own, float(left), len(matrix)) for own, left in lines])


def _max_evidence(squares: Matrix, projected: Matrix, rest: float, count: int) -> float:
    """Maximise the evidence over the ratio r; the largest of ``squares`` (k,) is 1."""
    low, high = np.log(MIN_RATIO), -np.log(MIN_RATIO)
    # The evidence may have several maxima along the line, so a grid comes before the local search.
    grid = np.linspace(low, high, GRID_POINTS)
    tried = [_evidence(step, squares, projected, rest, count) for step in grid]
    best, step = int(np.argmax(tried)), grid[1] - grid[0]
    around = max(low, grid[best] - step), min(high, grid[best] + step)
    found = minimize_scalar(
        lambda at: -_evidence(at, squares, projected, rest, count),
        bounds=around,
        method="bounded",
        options={"xatol": 1e-6},
    )
    # The bounded search never evaluates its bounds and may end below the best point of the grid.
    return max(float(-found.fun), tried[best])


def _evidence(log_ratio: float, squares: Matrix, projected: Matrix, rest: float, count: int) -> float:
    """Return log N(y; 0, β⁻¹ (I + F Fᵀ / r)) at the best β."""
    ratio = np.exp(log_ratio)
    noise = (rest + np.sum(projected * (ratio / (ratio + squares)))) / count
    return float(-0.5 * (count * (np.log(2 * np.pi * noise) + 1.0) + np.sum(np.log1p(squares / ratio))))
