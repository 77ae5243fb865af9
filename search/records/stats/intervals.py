"""Compute confidence intervals of what is measured on images, and the verdict on transfer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.records.record import Interval, Outcome, ProbeVerdict, Verdict


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
    return _score_interval(correct / count, count)


def mean_accuracy(correct: NDArray[np.bool_]) -> Interval:
    """Return the mean accuracy of several training runs on the same images, with a 95 % interval.

    The interval covers which images are in the split and which seeds the training runs had. The variance of the mean,
    computed as in :func:`paired_difference`, gives an effective number of images, for which Wilson's interval is
    computed (Korn and Graubard 1998, Survey Methodology 24, on proportions in surveys). So the interval stays within
    [0, 1] and has a width even if every run is right on every image. The effective number is at most the real one:
    the interval is never narrower than that of a single run.

    Args:
        correct: (seeds, N), whether each training run classifies each image correctly; N > 0.
    """
    if correct.ndim != 2 or not correct.size:
        raise ValueError(f"expected a (seeds, N) array that is not empty, received {correct.shape}")
    share, images = float(correct.mean()), correct.shape[1]
    parts = _variances([correct.astype(np.float64)], correct.mean(axis=0))
    variance, freedom = sum(v for v, _ in parts), _freedom(parts)
    if variance == 0:
        return _score_interval(share, images)
    effective = min(float(images), share * (1 - share) / variance)
    return _score_interval(share, effective * (Z95 / _quantile(freedom)) ** 2)


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """Return the mean of ``values`` (seeds, N) with a 95 % interval over images and seeds by Student's t."""
    if values.ndim != 2 or not values.size:
        raise ValueError(f"expected a (seeds, N) array that is not empty, received {values.shape}")
    parts = _variances([values], values.mean(axis=0))
    return Difference(float(values.mean()), math.sqrt(sum(v for v, _ in parts)), _freedom(parts)).interval


@dataclass(frozen=True)
class Difference:
    """An estimated mean or difference of means, its standard error, and the degrees of freedom of the latter."""

    estimate: float
    standard_error: float
    freedom: float

    @property
    def interval(self) -> Interval:
        """The 95 % interval by Student's t."""
        half = _quantile(self.freedom) * self.standard_error if self.standard_error else 0.0
        return Interval(self.estimate, self.estimate - half, self.estimate + half)


def paired_difference(first: NDArray[np.generic], second: NDArray[np.generic]) -> Difference:
    """Return the mean of ``first`` minus that of ``second``, measured on the same images.

    Two sources of chance are covered: which images there are (the variance of the paired differences, averaged over
    seeds), and which seeds the training runs had (the variance of the mean between seeds). The variances are added; the
    degrees of freedom are those of Welch and Satterthwaite.

    Args:
        first: (seeds, N), a value of each image after each training run, N > 1: whether it is classified correctly, or
            its loss.
        second: (seeds', N), the same images under another configuration.
    """
    a, b = first.astype(np.float64), second.astype(np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or a.shape[1] < 2:
        raise ValueError(f"expected (seeds, N) arrays over the same images, received {a.shape} and {b.shape}")
    # The difference is taken per image before its variance: images that are hard for both do not widen the interval.
    difference = a.mean(axis=0) - b.mean(axis=0)
    parts = _variances([a, b], difference)
    return Difference(float(difference.mean()), math.sqrt(sum(v for v, _ in parts)), _freedom(parts))


def paired_gain(winner: NDArray[np.generic], scratch: NDArray[np.generic]) -> Interval:
    """Return the accuracy of ``winner`` minus that of ``scratch``, with a 95 % interval over images and seeds.

    Args:
        winner: (seeds, N) bool, whether each of the winner's training runs classifies each test image correctly.
        scratch: (seeds', N) bool, the same for the baseline.
    """
    return paired_difference(winner, scratch).interval


def _variances(sides: list[NDArray[np.float64]], images: NDArray[np.float64]) -> list[tuple[float, int]]:
    """Return the variances of a mean with their degrees of freedom: between images, and between seeds of each side.

    Args:
        sides: (seeds, N) values of each side.
        images: (N,) values averaged over seeds, or their differences.
    """
    parts = [(float(images.var(ddof=1)) / images.size, images.size - 1)] if images.size > 1 else []
    for runs in sides:
        if len(runs) > 1:
            parts.append((float(runs.mean(axis=1).var(ddof=1)) / len(runs), len(runs) - 1))
    return parts


def _freedom(parts: list[tuple[float, int]]) -> float:
    """Return the degrees of freedom of a sum of independent variance estimates (Welch–Satterthwaite)."""
    variance = sum(v for v, _ in parts)
    return variance**2 / sum(v**2 / df for v, df in parts) if variance else math.inf


def _quantile(freedom: float) -> float:
    """Return the 97.5 % quantile of Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.975, freedom)) if math.isfinite(freedom) else Z95


def _score_interval(share: float, count: float) -> Interval:
    """Return Wilson's interval of a proportion ``share`` of ``count`` images, which need not be a whole number."""
    z2 = Z95**2
    # Rounding may push an end past the share at 0 of N or N of N: the interval must contain its estimate.
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


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


def probe_verdict(outcome: Outcome) -> ProbeVerdict | None:
    """Conclude what the winner gains over the frozen probe; None without a probe."""
    if outcome.probe is None:
        return None
    if outcome.probe_won:
        return "enough"
    gain, seeds = (
        outcome.probe_gain,
        min(len(outcome.seed_test_accuracies), len(outcome.probe.test_accuracies)),
    )
    if gain is None or seeds < MIN_SEEDS:
        return "no difference"
    if gain.low > 0:
        return "helps"
    return "worse" if gain.high < 0 else "no difference"
