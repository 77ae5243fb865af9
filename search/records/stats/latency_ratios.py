"""Turn the times of architectures that were measured in turn into one latency for each.

Architectures whose times do not differ by more than noise get the same latency. Otherwise the luckier one of two
equal architectures would appear as a point of the Pareto front.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EQUAL_WITHIN = 0.03
"""Latencies that differ by less than this fraction count as equal."""

Z99 = 2.576
"""The 99.5 % quantile of the normal distribution, for a two-sided 99 % interval."""

Times = NDArray[np.float64]


def latency_ratio(first: Times, second: Times) -> float:
    """Return the ratio of the latencies ``second / first``, or 1 if they do not differ significantly.

    The estimate is the median of the ratios of each round, with the 99 % interval of the sign test (the order
    statistics of a binomial count). This makes no assumption on the distribution of the noise of a busy machine, and
    whatever slows both down in a round cancels. The ratio is 1 if the interval contains 1 or the median is within
    :data:`EQUAL_WITHIN`.

    Args:
        first: (rounds,) milliseconds.
        second: (rounds,) milliseconds, of the same rounds.
    """
    ratios = np.sort(second / first)
    rounds = len(ratios)
    # Order statistics of the binomial count: of n rounds, n/2 ± z·sqrt(n)/2 lie below the median (normal
    # approximation).
    reach = Z99 * np.sqrt(rounds) / 2
    low = ratios[max(0, int(np.floor(rounds / 2 - reach)))]
    high = ratios[min(rounds - 1, int(np.ceil(rounds / 2 + reach)) - 1)]
    middle = float(np.median(ratios))
    apart = (low > 1 and middle > 1 + EQUAL_WITHIN) or (high < 1 and middle < 1 / (1 + EQUAL_WITHIN))
    return middle if apart else 1.0


def comparable_latencies(times: Times, known: dict[int, float]) -> list[float]:
    """Return one latency in milliseconds for each row of ``times`` (architectures, rounds).

    Rows are processed from the fastest to the slowest. A row that does not differ significantly from the nearest row
    with a latency gets the same latency.

    Args:
        times: (architectures, rounds) milliseconds.
        known: latencies of rows that already have one, which they keep. They also calibrate how much slower or
            faster the machine is now.
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
    # One row per latency: of the rows that share one, the first, which was measured for it.
    first = {milliseconds: other for other, milliseconds in reversed(found.items())}
    # Distances of latencies are ratios, hence the logarithm.
    nearest = min(first.values(), key=lambda other: (abs(np.log(own / np.median(times[other]))), other))
    return _rounded(found[nearest] * latency_ratio(times[nearest], times[row]))


def _rounded(milliseconds: float) -> float:
    return float(f"{milliseconds:.4g}")
