"""Compare two classifiers on the same test images: McNemar's exact test, and a bootstrap over images and seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.records.record import Interval

BOOTSTRAP_RESAMPLES = 5000

MAX_COUNTS_IN_MEMORY = 2_000_000
"""Counts of resampled patterns that are held in memory at a time."""

Right = NDArray[np.bool_]


@dataclass(frozen=True)
class McNemar:
    """On how many images only one of two models is correct, and the exact two-sided p-value of that difference."""

    first_only: int
    second_only: int
    p_value: float

    @property
    def second_better(self) -> bool:
        """Whether the second model is significantly better, at the level of 5 %."""
        return self.second_only > self.first_only and self.p_value < 0.05


def mcnemar(first: Right, second: Right) -> McNemar:
    """Run McNemar's exact test (McNemar 1947) on (N,) booleans: whether each model is correct on each image.

    Under the null hypothesis of equally good models, each is correct on half of the b + c images on which they
    differ. The p-value is twice the tail of Binomial(b + c, 1/2), at most 1.
    """
    from scipy.stats import binom

    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"expected two (N,) arrays over the same images, received {first.shape} and {second.shape}"
        )
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    # The exact binomial test: the chi-squared approximation is inaccurate if few images differ.
    tail = float(binom.cdf(min(b, c), b + c, 0.5)) if b + c else 1.0
    return McNemar(b, c, min(1.0, 2 * tail))


def bootstrap_gain(
    first: Right, second: Right, seed: int = 0, resamples: int = BOOTSTRAP_RESAMPLES
) -> Interval:
    """Return the mean accuracy of ``first`` minus that of ``second``, with a 95 % percentile interval.

    Images are drawn with replacement, the same for both sides. Training runs are drawn with replacement, too: n − 1
    of n, which makes the variance between few seeds unbiased (Rao and Wu 1988, with m = n − 1).

    Args:
        first: (seeds, N), whether each training run classifies each test image correctly.
        second: (seeds', N), the same images under another configuration.
        seed: seed of the resampling.
        resamples: number of resamples.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or first.shape[1] < 2:
        raise ValueError(
            f"expected (seeds, N) arrays over the same images, received {first.shape} and {second.shape}"
        )
    count = first.shape[1]
    # Images with the same results in every training run form one pattern. There are at most 2^(seeds + seeds')
    # patterns; drawing how often each one comes (a multinomial) is the same as drawing images, but much faster.
    patterns, times = np.unique(np.concatenate([first, second]).T, axis=0, return_counts=True)
    random = np.random.default_rng(seed)
    step = max(1, MAX_COUNTS_IN_MEMORY // len(times))
    pieces = [
        random.multinomial(count, times / count, size=min(step, resamples - start)) @ patterns.astype(float)
        for start in range(0, resamples, step)
    ]
    accuracies = np.concatenate(pieces) / count
    drawn = _mean_of_drawn(accuracies[:, : len(first)], random) - _mean_of_drawn(
        accuracies[:, len(first) :], random
    )
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(float(first.mean() - second.mean()), float(low), float(high))


def _mean_of_drawn(accuracies: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Return the means (R,) of training runs drawn from (R, seeds) accuracies."""
    resamples, seeds = accuracies.shape
    # n − 1 of n: with n of n, the bootstrap underestimates the variance between seeds by the factor (n − 1)/n,
    # which is a half with two seeds.
    drawn = random.integers(0, seeds, (resamples, max(seeds - 1, 1)))
    means: NDArray[np.float64] = np.take_along_axis(accuracies, drawn, axis=1).mean(axis=1)
    return means
