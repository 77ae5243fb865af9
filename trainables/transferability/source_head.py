"""Fits a classifier of the source on frozen features, in place of the head that a backbone has lost."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from trainables.errors import DataError
from trainables.transferability.samples import Matrix, as_classes, as_features

MAX_ITERATIONS = 200


def source_probabilities(source: Any, source_labels: Any, target: Any) -> Matrix:
    """Fit a logistic regression to the source and return its probabilities for the target: (N, S), rows sum to 1.

    Args:
        source: (M, D) features of the source's images.
        source_labels: (M,) their classes.
        target: (N, D) features of the target's images under the same backbone.

    Raises:
        DataError: the shapes are wrong, or values are not finite.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = as_features(source, "source"), as_features(target, "target", min_samples=1)
    if x.shape[1] != y.shape[1]:
        raise DataError(f"target: expected {x.shape[1]} features as in source, received {y.shape[1]}")
    codes = as_classes(source_labels, len(x), "source_labels")
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS))
    with warnings.catch_warnings():
        # A head that has almost converged is good enough for a score.
        warnings.simplefilter("ignore", ConvergenceWarning)
        head.fit(x, codes)
    return np.asarray(head.predict_proba(y))
