"""Which epoch and which trial is best, where the target has no labels to ask.

Two things are looked at:

* what is right on the source's validation images, each weighted by how much likelier it is in the target (importance
  weighted cross-validation, Sugiyama et al. 2007). It knows right from wrong, but only where the source has images
  like the target's: with little overlap a few images decide, and it favours what is best for the source.
* log K − I(x; y) of the answers to the target's validation images: I is the entropy of the mean answer minus the mean
  entropy of the answers (Bridle et al. 1991). It is small where answers are sure and all K classes occur. It looks at
  the target itself, but can't tell sure and right from sure and wrong, and expects classes that are equally frequent.

The loss is the sum of both, the weighted cross-entropy and what is lacking in information (Krause et al. 2010,
Discriminative clustering by regularized information maximization); the accuracy is the source's alone.
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
"""No validation image counts for more than so many."""

MIN_PROBABILITY = 1e-7
"""A probability below counts as this."""


def weighted_source_validation(
    source: SourceData, bench: Workbench, said_source: np.ndarray, said_target: np.ndarray
) -> tuple[float, float]:
    """(loss, accuracy), see above.

    Args:
        source: whose validation labels count.
        bench: of the target.
        said_source: (n, K) probabilities of all of the source's validation images.
        said_target: (m, K) probabilities of the target's.
    """
    rows = source.rows("validation")
    said, truth = said_source[rows], source.labels("validation")[rows]
    weights = importance_weights(
        source_log_ratios(source, bench, "validation", CostAccount()), 1.0, MAX_WEIGHT
    )
    entropies = -np.log(np.maximum(said[np.arange(len(rows)), truth], MIN_PROBABILITY))
    loss = float(np.average(entropies, weights=weights)) + missing_information(said_target)
    return loss, float(np.average(said.argmax(axis=1) == truth, weights=weights))


def missing_information(probabilities: np.ndarray) -> float:
    """log K − mutual information between images and answers (N, K); between 0 and log K."""
    p = probabilities.astype(np.float64)
    information = entropy(p.mean(axis=0)) - entropy(p).mean()
    return float(math.log(p.shape[1]) - information)


def entropy(p: np.ndarray) -> np.ndarray:
    """In nats, over the last axis."""
    return np.asarray(-(p * np.log(np.maximum(p, 1e-300))).sum(axis=-1))
