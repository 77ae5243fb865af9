"""Two classifiers on the same test images: McNemar's exact test, and a bootstrap over images and seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.records.record import Interval

BOOTSTRAP_RESAMPLES = 5000

MAX_COUNTS_IN_MEMORY = 2_000_000
"""Counts that are held in memory at a time."""

Right = NDArray[np.bool_]


@dataclass(frozen=True)
class McNemar:
    """How often only the one of two models was right, and the exact two-sided p-value of that being chance."""

    first_only: int
    second_only: int
    p_value: float

    @property
    def second_better(self) -> bool:
        """Whether the second model is the better one, at the level of 5 %."""
        return self.second_only > self.first_only and self.p_value < 0.05


def mcnemar(first: Right, second: Right) -> McNemar:
    """McNemar's exact test (McNemar 1947) of (N,) answers right or wrong to the same images.

    Of the images to which the two answer differently, each model is right on half, if they are equally good: twice
    the binomial tail, at most 1.
    """
    from scipy.stats import binom

    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"expected two (N,) arrays over the same images, received {first.shape} and {second.shape}"
        )
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    tail = float(binom.cdf(min(b, c), b + c, 0.5)) if b + c else 1.0
    return McNemar(b, c, min(1.0, 2 * tail))


def bootstrap_gain(
    first: Right, second: Right, seed: int = 0, resamples: int = BOOTSTRAP_RESAMPLES
) -> Interval:
    """Mean accuracy of ``first`` minus that of ``second`` with a 95 % percentile interval.

    Args:
        first: (seeds, N), whether each training was right on each test image.
        second: (seeds', N), the same images under another configuration.

    Images are drawn with replacement, the same for both; trainings too, one fewer than there are, which makes the
    variance between few seeds unbiased (Rao and Wu 1988, with m = n − 1). Images to which all trainings answer
    alike are one pattern: drawing how often each pattern comes is the same as drawing images, only faster.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or first.shape[1] < 2:
        raise ValueError(
            f"expected (seeds, N) arrays over the same images, received {first.shape} and {second.shape}"
        )
    count = first.shape[1]
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
    """Means (R,) of trainings drawn from (R, seeds) accuracies."""
    resamples, seeds = accuracies.shape
    drawn = random.integers(0, seeds, (resamples, max(seeds - 1, 1)))
    means: NDArray[np.float64] = np.take_along_axis(accuracies, drawn, axis=1).mean(axis=1)
    return means
