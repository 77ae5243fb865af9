"""Scores epochs and trials if the labels of the target are hidden, so that the best can be chosen.

Two quantities are combined:

* The accuracy and cross-entropy on the source's validation images, each weighted by how much likelier it is in the
  target (importance-weighted cross-validation, Sugiyama et al. 2007). They tell right from wrong, but only where the
  source has images like the target's: with little overlap a few images decide, and what is best for the source is
  favoured.
* The missing information log K − I(x; y) of the predictions for the target's validation images. I is the entropy of the
  mean prediction minus the mean entropy of the predictions (Bridle et al. 1991). The missing information is small if
  predictions are confident and all K classes occur. It uses the target itself, but cannot tell confident and right from
  confident and wrong, and it expects classes that are equally frequent.

The loss is the sum of the weighted cross-entropy and the missing information (Krause et al. 2010, Discriminative
clustering by regularized information maximization). The accuracy is that on the source alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from trainables.cost_account import CostAccount
from trainables.methods.importance_weights import importance_weights
from trainables.methods.source_features import source_log_ratios

if TYPE_CHECKING:
    from trainables.training.source_data import SourceData
    from trainables.training.workbench import Workbench

MAX_WEIGHT = 10.0
"""Largest weight of a validation image as a multiple of the mean, so that no single image decides."""

MIN_PROBABILITY = 1e-7
"""Lower bound of a probability in the cross-entropy, so that one confident error is not infinite."""


def weighted_source_validation(
    source: SourceData, bench: Workbench, source_predictions: np.ndarray, target_predictions: np.ndarray
) -> tuple[float, float]:
    """Return the estimated (loss, accuracy) on the target, as the module describes.

    Args:
        source: the source dataset, whose validation labels are used.
        bench: has the target, whose labels are not used.
        source_predictions: (n, K) probabilities of all validation images of the source.
        target_predictions: (m, K) probabilities of the target's images.
    """
    rows = source.shared_rows("validation")
    predicted, truth = source_predictions[rows], source.labels("validation")[rows]
    # The density ratios are computed once for all trials, so their cost is charged to none of them.
    weights = importance_weights(
        source_log_ratios(source, bench, "validation", CostAccount()), 1.0, MAX_WEIGHT
    )
    entropies = -np.log(np.maximum(predicted[np.arange(len(rows)), truth], MIN_PROBABILITY))
    loss = float(np.average(entropies, weights=weights)) + missing_information(target_predictions)
    return loss, float(np.average(predicted.argmax(axis=1) == truth, weights=weights))


def missing_information(probabilities: np.ndarray) -> float:
    """Return log K minus the mutual information between images and predictions (N, K), in nats; in [0, log K]."""
    p = probabilities.astype(np.float64)
    information = entropy(p.mean(axis=0)) - entropy(p).mean()
    return float(math.log(p.shape[1]) - information)


def entropy(p: np.ndarray) -> np.ndarray:
    """Return the entropy in nats over the last axis."""
    return np.asarray(-(p * np.log(np.maximum(p, 1e-300))).sum(axis=-1))
