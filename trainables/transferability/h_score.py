"""H-score: measures how far apart the classes are, relative to the variance of the features.

Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP 2019,
https://arxiv.org/abs/2212.10082, with the shrinkage of Ibrahim et al., "Newer is not always better: Rethinking
transferability metrics, their peculiarities, stability and performance", ECML 2022, https://arxiv.org/abs/2110.06893:

    H_α = (1 − α) tr(Σ_α⁻¹ Σ_z),  Σ_α = (1 − α) Σ_f + α (tr Σ_f / D) I,

where Σ_f is the covariance of the features, Σ_z that of their class means, and α the shrinkage of Ledoit and Wolf ("A
well-conditioned estimator for large-dimensional covariance matrices", 2004). Both covariances divide by N. Everything
is computed in the basis of the singular vectors, so that D × D matrices occur only for D < N.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trainables.transferability.samples import Matrix, as_classes, as_features, centred, one_hot
from trainables.transferability.spectrum import spectrum


def h_score(features: Any, labels: Any) -> float:
    """Return the H-score with shrinkage: 0 to K − 1 for K classes, greater is better.

    Args:
        features: (N, D). Constant features change nothing but D, on which the shrinkage depends.
        labels: (N,) classes; classes without samples do not count.

    Raises:
        DataError: the shapes are wrong, there are fewer than two samples or classes, or values are not finite.
    """
    matrix = as_features(features)
    codes = as_classes(labels, len(matrix))
    moved = centred(matrix)
    if moved is None:
        return 0.0
    count, width = moved.shape
    found = spectrum(moved)
    variances = found.squares / count
    alpha = shrinkage(moved, variances)
    regular = (1 - alpha) * variances + alpha * variances.sum() / width
    indicators = one_hot(codes)
    between = (found.left.T @ indicators) ** 2 / indicators.sum(axis=0)
    return float((1 - alpha) * np.sum(variances[:, None] * between / regular[:, None]))


def shrinkage(matrix: Matrix, variances: Matrix) -> float:
    """Return the shrinkage α of Ledoit and Wolf, 0 to 1, of ``matrix`` (N, D), features with mean 0.

    ``variances`` (k,) are the non-zero eigenvalues of their covariance S. With δ² = ‖S − μ I‖²_F, the distance of S
    from a multiple of the identity, and β² = (1/N²) Σᵢ ‖xᵢ xᵢᵀ − S‖²_F, the part of it due to chance, α = min(β², δ²)
    / δ².
    """
    count, width = matrix.shape
    square, mean = float(np.sum(variances**2)), float(variances.sum()) / width
    delta = square - width * mean**2
    if delta <= np.finfo(np.float64).eps * square:
        return 0.0  # S is a multiple of the identity already
    beta = (float(np.sum(np.sum(matrix**2, axis=1) ** 2)) / count - square) / count
    # Rounding may make the estimate of β² slightly negative.
    return float(min(max(beta, 0.0), delta) / delta)
