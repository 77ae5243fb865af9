"""LEEP and NCE: scores from what a classifier of the source predicts for target images."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainables.errors import DataError
from trainables.transferability.samples import Codes, Matrix, as_classes, as_features, one_hot

SUM_TOLERANCE = 0.01
"""How far the probabilities of a sample may be from a sum of 1: the rounding of float16 over many classes."""


def leep(probabilities: Any, labels: Any) -> float:
    """Return the log expected empirical prediction; at most 0, greater is better.

    Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned Representations", ICML 2020,
    https://arxiv.org/abs/2002.12462. With θ(xᵢ)_z the probability of source class z, and P(y, z) its mean over the
    samples of class y times their share, it is the mean over the samples of log Σ_z P(yᵢ | z) θ(xᵢ)_z.

    Args:
        probabilities: θ (N, S), each row a distribution over the source's classes.
        labels: (N,) classes of the target.

    Raises:
        DataError: the shapes are wrong, or rows are no distributions.
    """
    theta = _distributions(probabilities)
    codes = as_classes(labels, len(theta), min_classes=1)
    joint = one_hot(codes).T @ theta / len(theta)
    mass = joint.sum(axis=0)
    seen = mass > 0  # source classes without any probability do not count
    conditional = joint[:, seen] / mass[seen]
    expected = (conditional[codes] * theta[:, seen]).sum(axis=1)
    # Rounding may lead to sums slightly above 1, whose logarithm would be positive.
    return float(np.mean(np.log(np.minimum(expected, 1.0))))


def nce(source_labels: Any, labels: Any) -> float:
    """Return the negative conditional entropy −H(Y | Z) in nats; at most 0, greater is better.

    Tran et al., "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019,
    https://arxiv.org/abs/1908.08142.

    Args:
        source_labels: z (N,), a source class for each target sample, such as the most probable one.
        labels: y (N,), its class in the target.

    Raises:
        DataError: the shapes are wrong.
    """
    labelled = np.asarray(labels)
    count = len(labelled) if labelled.ndim else 0
    y = as_classes(labels, count, min_classes=1)
    z = as_classes(source_labels, count, "source_labels", min_classes=1)
    joint = one_hot(y).T @ one_hot(z) / count
    return float(_plogp(joint) - _plogp(joint.sum(axis=0)))


def most_probable(probabilities: Any) -> Codes:
    """Return the most probable source class of each sample (N,), from (N, S); the first one among equals."""
    return np.asarray(_distributions(probabilities).argmax(axis=1))


def _plogp(shares: Matrix) -> float:
    some = shares[shares > 0]
    return float(np.sum(some * np.log(some)))


def _distributions(probabilities: Any) -> Matrix:
    theta = as_features(probabilities, "probabilities", min_samples=1)
    sums = theta.sum(axis=1, keepdims=True)
    if theta.min() < 0 or np.abs(sums - 1.0).max() > SUM_TOLERANCE:
        raise DataError(
            "probabilities: expected rows of numbers from 0 on that sum to 1, received numbers from "
            f"{theta.min():.3g} on and sums from {sums.min():.3g} to {sums.max():.3g}"
        )
    return np.asarray(theta / sums)
