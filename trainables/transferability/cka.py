"""Linear CKA: measures whether two representations of the same samples have the same geometry.

Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019,
https://arxiv.org/abs/1905.00414: CKA = HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) with K = X Xᵀ, L = Y Yᵀ. With more
features than samples it is near 1 for any X and Y; in that case use the unbiased estimator of HSIC (Song et al.,
"Feature Selection via Dependence Maximization", JMLR 2012, eq. 5).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trainables.errors import DataError
from trainables.transferability.samples import Matrix, as_classes, as_features, centred, one_hot


def linear_cka(first: Any, second: Any, debiased: bool = False) -> float:
    """Return the similarity of two representations, which ignores rotation and scale.

    Args:
        first: X (N, D).
        second: Y (N, E), the same samples in the same order.
        debiased: use the unbiased estimator. It needs at least 4 samples and can be slightly negative.

    Returns:
        A number from 0 to 1; 0 if one of the representations is the same for all samples.

    Raises:
        DataError: the shapes are wrong, there are too few samples, or values are not finite.
    """
    min_samples = 4 if debiased else 2
    x, y = as_features(first, "first", min_samples), as_features(second, "second", min_samples)
    if len(x) != len(y):
        raise DataError(f"second: expected as many samples as first, {len(x)}, received {len(y)}")
    grams = [_gram(x), _gram(y)]
    if any(gram is None for gram in grams):
        return 0.0
    hsic = _hsic_unbiased if debiased else _hsic
    k, l = (gram for gram in grams if gram is not None)  # noqa: E741 - the names of the paper
    norm = hsic(k, k) * hsic(l, l)
    return float(hsic(k, l) / np.sqrt(norm)) if norm > 0 else 0.0


def label_cka(features: Any, labels: Any, debiased: bool = True) -> float:
    """Return the linear CKA between ``features`` (N, D) and the one-hot encoding of ``labels`` (N,).

    This is the kernel-target alignment of Cortes et al. 2012 (https://arxiv.org/abs/1203.0550). It measures, without
    any fitting, whether samples of one class are close to each other and far from other classes.

    Raises:
        DataError: as for :func:`linear_cka`.
    """
    matrix = as_features(features, min_samples=4)
    return linear_cka(matrix, one_hot(as_classes(labels, len(matrix))), debiased)


def _gram(matrix: Matrix) -> Matrix | None:
    """Return X Xᵀ of centred features at a scale near 1; None if the features are constant."""
    moved = centred(matrix)
    if moved is None:
        return None
    # CKA does not depend on the scale, but the products of Gram matrices of very large or very small features
    # would overflow or underflow.
    scaled = moved / np.linalg.norm(moved)
    return np.asarray(scaled @ scaled.T)


def _hsic(k: Matrix, l: Matrix) -> float:  # noqa: E741
    """Return tr(K L) of centred Gram matrices, which is (N − 1)² times HSIC."""
    # The factor cancels in the quotient of CKA, so it is left out.
    return float(np.sum(k * l))


def _hsic_unbiased(k: Matrix, l: Matrix) -> float:  # noqa: E741
    """Return N (N − 3) times the unbiased estimator of HSIC (Song et al. 2012, eq. 5)."""
    count = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    rows, columns = k.sum(axis=0), l.sum(axis=0)
    whole = rows.sum() * columns.sum() / ((count - 1) * (count - 2))
    return float(np.sum(k * l) + whole - 2.0 / (count - 2) * (rows @ columns))
