"""Measure whether a model's probabilities are calibrated: of the predictions with 90 %, nine in ten should be correct.

The expected calibration error (ECE) of Guo et al. (ICML 2017, eq. 3) is computed over ten bins of equal width. Even a
perfectly calibrated model has an ECE above 0, and a larger one on fewer images.
:attr:`~search.records.record.Calibration.by_chance` is the ECE that such a model may have by chance, computed by
consistency resampling (Bröcker and Smith, Weather and Forecasting 2007).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from search.records.record import Calibration, CalibrationBin, Interval
from search.records.stats.intervals import Z95, wilson

BINS = 10
MIN_RESAMPLES, MAX_RESAMPLES = 200, 1000
"""Number of bootstrap resamples: fewer with many images, whose interval is narrow."""

MAX_DRAWN_VALUES = 2**22
"""Values that all resamples hold together; also the values held in memory at a time."""

Numbers = NDArray[np.floating]


def calibration_of(
    predicted_probability: Numbers, correct: NDArray[np.bool_], true_class_probability: Numbers, seed: int = 0
) -> Calibration:
    """Compare a model's probabilities with how often it is correct.

    Args:
        predicted_probability: (N,) probabilities of the predicted classes.
        correct: (N,) whether the predicted class is the true one.
        true_class_probability: (N,) probabilities of the true classes.
        seed: seed of the resampling.

    Raises:
        ValueError: the arrays are empty or have different lengths.
    """
    shapes = [values.shape for values in (predicted_probability, correct, true_class_probability)]
    if not len(predicted_probability) or len(set(shapes)) != 1:
        first, second, third = shapes
        raise ValueError(f"expected three arrays (N,) with N > 0, received {first}, {second} and {third}")
    sure = np.clip(np.asarray(predicted_probability, np.float64), 0.0, 1.0)
    place = _bin_indices(sure)
    difference = sure - correct
    error = _errors(difference[None], place)[0]
    random = np.random.default_rng(seed)
    # A Wald interval: the mean of N differences in [-1, 1] is close to normal for the sizes of test splits.
    excess, spread = float(difference.mean()), float(difference.std()) / math.sqrt(len(sure))
    return Calibration(
        bins=tuple(_bin(b, sure[place == b], correct[place == b]) for b in range(BINS) if np.any(place == b)),
        error=_interval(float(error), _errors_of_resamples(difference, place, random)),
        by_chance=float(np.quantile(_errors_when_calibrated(sure, place, random), 0.95)),
        excess=Interval(excess, excess - Z95 * spread, excess + Z95 * spread),
        # The smallest normal float32 keeps the loss finite where float32 probabilities underflow to 0.
        log_loss=float(
            -np.log(np.maximum(true_class_probability.astype(np.float64), np.finfo(np.float32).tiny)).mean()
        ),
    )


def _bin_indices(sure: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bin of each probability: the first bin is [0, 0.1], the second (0.1, 0.2], and so on."""
    # Bins are closed on the right as in Guo et al.; the clip puts 0 into the first bin.
    return np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _bin(place: int, sure: NDArray[np.float64], right: NDArray[np.bool_]) -> CalibrationBin:
    accuracy = wilson(int(right.sum()), len(right))
    return CalibrationBin(place / BINS, (place + 1) / BINS, len(right), float(sure.mean()), accuracy)


def _errors(differences: NDArray[np.float64], place: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the calibration errors (R,) of (R, N) differences between probability and outcome."""
    # The weight of a bin times the gap between its mean probability and its accuracy is |sum of differences| / N:
    # the number of images in the bin cancels. One matrix product sums the differences of all resamples by bin.
    member = (place[:, None] == np.arange(BINS)).astype(np.float64)
    errors: NDArray[np.float64] = np.abs(differences @ member).sum(axis=1) / len(place)
    return errors


def _errors_of_resamples(
    difference: NDArray[np.float64], place: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.float64]:
    """Return the errors of resamples of the images, drawn with replacement."""
    count = len(place)
    even = np.full(count, 1 / count)
    return np.concatenate(
        [
            _errors(random.multinomial(count, even, size=rows) * difference, place)
            for rows in _chunk_sizes(count)
        ]
    )


def _errors_when_calibrated(
    sure: NDArray[np.float64], place: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.float64]:
    """Return the errors of a model that is correct exactly as often as its probabilities say."""
    count = len(place)
    return np.concatenate(
        [_errors(sure - (random.random((rows, count)) < sure), place) for rows in _chunk_sizes(count)]
    )


def _chunk_sizes(count: int) -> list[int]:
    """Return the numbers of resamples to compute at a time, for ``count`` images."""
    whole = min(max(MAX_DRAWN_VALUES // count, MIN_RESAMPLES), MAX_RESAMPLES)
    step = max(1, MAX_DRAWN_VALUES // count)
    return [min(step, whole - start) for start in range(0, whole, step)]


def _interval(estimate: float, resampled: NDArray[np.float64]) -> Interval:
    """Return the basic bootstrap interval (Davison and Hinkley 1997, eq. 5.6), clipped to [0, 1].

    The percentile interval would add the upward bias of the ECE a second time; the basic interval subtracts it.
    """
    low, high = 2 * estimate - np.quantile(resampled, (0.975, 0.025))
    return Interval(estimate, float(max(0.0, min(low, estimate))), float(min(1.0, max(high, estimate))))
