"""Intervals for what is measured on test images, and the verdict on transfer.

The ends of a gain that has two intervals and nobody knows which is right: the one that reaches further counts.
"""

from __future__ import annotations

import math

import numpy as np

from search.records.record import Interval, Verdict


class ConservativeInterval:
    """Mixed into what has a ``gain`` by Student's t and the same gain by ``bootstrap``."""

    gain: Interval
    bootstrap: Interval

    @property
    def low(self) -> float:
        """The lower end of the interval that reaches lower."""
        return min(self.gain.low, self.bootstrap.low)

    @property
    def high(self) -> float:
        """The upper end of the interval that reaches higher."""
        return max(self.gain.high, self.bootstrap.high)


Z95 = 1.959963984540054


def wilson(correct: int, count: int) -> Interval:
    """95 % score interval of a share (Wilson 1927)."""
    if count <= 0 or not 0 <= correct <= count:
        raise ValueError(f"expected 0 <= correct <= count and count > 0, received {correct} of {count}")
    share, z2 = correct / count, Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def paired_gain(winner: np.ndarray, scratch: np.ndarray) -> Interval:
    """Accuracy of ``winner`` minus accuracy of ``scratch`` with a 95 % interval.

    Args:
        winner: (seeds, N) bool, whether each training of the winner was right on each test image.
        scratch: (seeds', N) bool, the same images under the baseline.

    Both sources of chance count: which images the test split holds (paired differences of the means over
    seeds) and which seeds the trainings had (variance of accuracy between seeds). The variances add; Student's
    t with Welch and Satterthwaite's degrees of freedom gives the width.
    """
    from scipy.stats import t

    a, b = winner.astype(np.float64), scratch.astype(np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or a.shape[1] < 2:
        raise ValueError(f"expected (seeds, N) arrays over the same images, received {a.shape} and {b.shape}")
    difference = a.mean(axis=0) - b.mean(axis=0)
    parts = [(difference.var(ddof=1) / difference.size, difference.size - 1)]
    for runs in (a, b):
        if len(runs) > 1:
            parts.append((runs.mean(axis=1).var(ddof=1) / len(runs), len(runs) - 1))
    variance = sum(v for v, _ in parts)
    estimate = float(difference.mean())
    if variance == 0:
        return Interval(estimate, estimate, estimate)
    freedom = variance**2 / sum(v**2 / df for v, df in parts)
    half = float(t.ppf(0.975, freedom)) * math.sqrt(variance)
    return Interval(estimate, estimate - half, estimate + half)


MIN_SEEDS = 2
"""Trainings of each side without which nothing is known of how they differ by chance."""


def verdict(gain: Interval, seeds: int) -> Verdict:
    """What a gain's interval allows to say; ``seeds`` are the trainings of the side that has fewer.

    The interval of single trainings knows of the test images alone: where seeds differ it would find a difference,
    in either direction, several times as often as it may.
    """
    if seeds < MIN_SEEDS:
        return "no difference"
    if gain.low > 0:
        return "helps"
    return "negative transfer" if gain.high < 0 else "no difference"
