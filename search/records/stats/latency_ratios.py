"""From the times of architectures that were asked in turn to one latency for each: equal where noise is all there is.

Without that, the luckier one of two equal architectures would seem to be a point of the front.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EQUAL_WITHIN = 0.03
"""Latencies that differ by less than this share count as equal."""

Z99 = 2.576
"""Standard deviations of a binomial count: the interval of a median has 99 %."""

Times = NDArray[np.float64]


def latency_ratio(first: Times, second: Times) -> float:
    """How many times as slow ``second`` is as ``first``: 1 unless that is certain and more than :data:`EQUAL_WITHIN`.

    Args:
        first: (rounds,) milliseconds. second: the same, of the same rounds.

    The median of the ratios of each round, with the interval of a sign test: it makes no assumption on how the noise of
    a busy machine is distributed, and what slows both down in a round cancels.
    """
    ratios = np.sort(second / first)
    rounds = len(ratios)
    reach = Z99 * np.sqrt(rounds) / 2
    low = ratios[max(0, int(np.floor(rounds / 2 - reach)))]
    high = ratios[min(rounds - 1, int(np.ceil(rounds / 2 + reach)) - 1)]
    middle = float(np.median(ratios))
    apart = (low > 1 and middle > 1 + EQUAL_WITHIN) or (high < 1 and middle < 1 / (1 + EQUAL_WITHIN))
    return middle if apart else 1.0


def comparable_latencies(times: Times, known: dict[int, float]) -> list[float]:
    """One latency in milliseconds for each row of ``times`` (architectures, rounds).

    Args:
        known: latencies of rows that have one already, which they keep: it tells how much slower or faster the machine
            was then.

    Rows are taken from the fastest to the slowest; one that can't be told from the nearest of those that have a latency
    of their own gets the same.
    """
    found = dict(known)
    for row in sorted(
        set(range(len(times))) - set(known), key=lambda row: (float(np.median(times[row])), row)
    ):
        found[row] = _latency(times, row, found)
    return [found[row] for row in range(len(times))]


def _latency(times: Times, row: int, found: dict[int, float]) -> float:
    own = float(np.median(times[row]))
    if not found:
        return _rounded(own)
    first = {
        milliseconds: other for other, milliseconds in reversed(found.items())
    }  # of those with the same latency
    nearest = min(first.values(), key=lambda other: (abs(np.log(own / np.median(times[other]))), other))
    return _rounded(found[nearest] * latency_ratio(times[nearest], times[row]))


def _rounded(milliseconds: float) -> float:
    return float(f"{milliseconds:.4g}")
