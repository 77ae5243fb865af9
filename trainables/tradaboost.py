"""Boosting for transfer: source images that a model of the target gets wrong lose weight (Dai et al. 2007, TrAdaBoost).

    w_S ← w_S · β^e,   β = 1 / (1 + √(2 ln n_S / N))

e in [0, 1] is the error on a source image, N the number of rounds. There a round is a weak learner and the answer a
vote of them; here it is an epoch of one network, e is one minus the probability that the network gives to the image's
class, and the target's own weights, which a vote needs, stay 1.
"""

from __future__ import annotations

import math

import numpy as np


def shrinkage(images: int, rounds: int) -> float:
    """β for ``images`` of the source (n_S) and ``rounds`` (N)."""
    return 1.0 / (1.0 + math.sqrt(2.0 * math.log(max(images, 1)) / max(rounds, 1)))


def shrunk(weights: np.ndarray, errors: np.ndarray, beta: float) -> np.ndarray:
    """Source weights (n_S,) after a round with ``errors`` (n_S,) between 0 and 1."""
    return np.asarray(weights * beta ** np.clip(errors, 0.0, 1.0))
