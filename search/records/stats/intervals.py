"""Compute confidence intervals of what is measured on test images, and the verdict on transfer."""

from __future__ import annotations

import math

import numpy as np

from search.records.record import Interval, Verdict


class ConservativeInterval:
    """Mix-in for a gain with two intervals, by Student's t (``gain``) and by bootstrap: the wider end counts.

    With few seeds neither interval is known to be right, so each end is taken from the interval that reaches
    further.
    """

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
    """Return the 95 % score interval of a proportion (Wilson 1927)."""
    if count <= 0 or not 0 <= correct <= count:
        raise ValueError(f"expected 0 <= correct <= count and count > 0, received {correct} of {count}")
    share, z2 = correct / count, Z95**2
    # Rounding may push an end past the share at 0 of N or N of N: the interval must contain its estimate.
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def paired_gain(winner: np.ndarray, scratch: np.ndarray) -> Interval:
    """Return the accuracy of ``winner`` minus that of ``scratch``, with a 95 % interval.

    Two sources of chance are covered: which images are in the test split (the variance of the paired differences,
    averaged over seeds), and which seeds the training runs had (the variance of accuracy between seeds). The
    variances are added. The width follows Student's t with the Welch–Satterthwaite degrees of freedom.

    Args:
        winner: (seeds, N) bool, whether each of the winner's training runs classifies each test image correctly.
        scratch: (seeds', N) bool, the same for the baseline.
    """
    from scipy.stats import t

    a, b = winner.astype(np.float64), scratch.astype(np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or a.shape[1] < 2:
        raise ValueError(f"expected (seeds, N) arrays over the same images, received {a.shape} and {b.shape}")
    # The same images are classified by both sides, so that the difference is taken per image before its variance:
    # images that are hard for both do not widen the interval.
    difference = a.mean(axis=0) - b.mean(axis=0)
    parts = [(difference.var(ddof=1) / difference.size, difference.size - 1)]
    for runs in (a, b):
        if len(runs) > 1:
            parts.append((runs.mean(axis=1).var(ddof=1) / len(runs), len(runs) - 1))
    variance = sum(v for v, _ in parts)
    estimate = float(difference.mean())
    if variance == 0:
        return Interval(estimate, estimate, estimate)
    # Welch–Satterthwaite: degrees of freedom of a sum of independent variance estimates.
    freedom = variance**2 / sum(v**2 / df for v, df in parts)
    half = float(t.ppf(0.975, freedom)) * math.sqrt(variance)
    return Interval(estimate, estimate - half, estimate + half)


MIN_SEEDS = 2
"""Training runs per side below which their variance between seeds is unknown."""


def verdict(gain: Interval, seeds: int) -> Verdict:
    """Conclude from the interval of a gain whether transfer helps.

    With a single training run, the interval covers the choice of test images only. It would find a difference
    between equally good methods several times as often as in 5 % of all cases, so that no verdict is given.

    Args:
        gain: the gain with its interval.
        seeds: training runs of the side that has fewer.
    """
    if seeds < MIN_SEEDS:
        return "no difference"
    if gain.low > 0:
        return "helps"
    return "negative transfer" if gain.high < 0 else "no difference"
