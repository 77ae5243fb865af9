"""Computes singular values and left singular vectors of features through the smaller Gram matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from trainables.transferability.samples import Matrix


@dataclass(frozen=True)
class Spectrum:
    """The decomposition X = U diag(σ) Vᵀ of rank k.

    Attributes:
        squares: (k,) σ², the largest first.
        left: (N, k) U.
    """

    squares: Matrix
    left: Matrix


def spectrum(matrix: Matrix) -> Spectrum:
    """Decompose ``matrix`` (N, D) in O(N D min(N, D)).

    Directions whose σ² is below the rounding error of the largest one are dropped, so k may be 0.
    """
    count, width = matrix.shape
    # The smaller of both Gram matrices has the same non-zero eigenvalues, σ².
    gram = matrix @ matrix.T if count <= width else matrix.T @ matrix
    squares, vectors = eigh(gram)
    kept = squares > max(count, width) * np.finfo(np.float64).eps * max(float(squares[-1]), 0.0)
    squares, vectors = squares[kept][::-1], vectors[:, kept][:, ::-1]
    left = vectors if count <= width else matrix @ vectors / np.sqrt(squares)
    return Spectrum(squares, left)
