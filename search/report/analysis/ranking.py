"""Rank trials: the winner, the best so far, and the position of a value among the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from search.records.record import SearchRecord, TrialRecord

TONES = 7
"""Number of steps of the scale that colours trials from worst to best."""


def without_non_finite_values(record: SearchRecord) -> SearchRecord:
    """Return ``record`` with NaN and infinite objective values replaced by None."""
    trials = tuple(
        replace(t, value=None) if t.value is not None and not math.isfinite(t.value) else t
        for t in record.trials
    )
    return replace(record, trials=trials)


def winner(record: SearchRecord) -> TrialRecord | None:
    """Return the trial that was trained again and tested, or else the best so far."""
    return record.winner


def ranked(record: SearchRecord) -> list[TrialRecord]:
    """Return the trials that have a value, the best first; failed trials do not count."""
    scored = [t for t in record.trials if t.value is not None and t.state != "failed"]
    return sorted(scored, key=lambda t: (loss_key(record, t.value), t.number))


def loss_key(record: SearchRecord, value: float | None) -> float:
    """Return a sort key that is smaller for better values."""
    if value is None:
        return math.inf
    return -value if record.direction == "maximize" else value


def tones(record: SearchRecord) -> dict[int, int]:
    """Return each ranked trial's step on the colour scale, by rank: 0 is the worst, ``TONES - 1`` the best."""
    order = ranked(record)
    last = max(len(order) - 1, 1)
    return {t.number: round((TONES - 1) * (1 - place / last)) for place, t in enumerate(order)}


def best_so_far(record: SearchRecord) -> list[tuple[int, float]]:
    """Return (trial number, best value up to it) wherever the best value changes."""
    steps: list[tuple[int, float]] = []
    for trial in sorted(ranked(record), key=lambda t: t.number):
        value = trial.value
        if value is not None and (not steps or loss_key(record, value) < loss_key(record, steps[-1][1])):
            steps.append((trial.number, value))
    return steps


def still_improving(record: SearchRecord) -> bool:
    """Return whether the best value was found by one of the last trials (15 %)."""
    finished = [t.number for t in record.trials if t.finished]
    steps = best_so_far(record)
    if len(finished) < 2 or not steps:
        return False
    return sum(number > steps[-1][0] for number in finished) <= 0.15 * len(finished)


def objective_domain(record: SearchRecord) -> tuple[float, float]:
    """Return the limits of an axis for the objective.

    They cover the better half of the trials and all trials that were not stopped early.
    """
    trials = ranked(record)
    half = trials[: math.ceil(len(trials) / 2)]
    shown = [t for t in trials if t.state == "complete" or t in half]
    return readable_domain(record, [t.value for t in shown if t.value is not None])


def readable_domain(
    record: SearchRecord, values: Sequence[float], usual: float = 0.85
) -> tuple[float, float]:
    """Return the limits of an axis on which the good values can be distinguished; the worst outliers are outside.

    Args:
        record: the search.
        values: the values to show.
        usual: share of ``values`` that are inside in any case; with few values, all are.
    """
    if not values:
        return 0.0, 1.0
    order = sorted(values, key=lambda v: loss_key(record, v))
    best, worst, common = order[0], order[-1], order[math.ceil(usual * (len(order) - 1))]
    # Leave room beyond the usual values, proportional to their spread; the worst values beyond it are drawn on the
    # edge.
    limit = common + 0.4 * (common - best)
    if loss_key(record, worst) < loss_key(record, limit):
        limit = worst
    low, high = min(best, limit), max(best, limit)
    # If all values are equal, the axis still needs an extent.
    margin = 0.06 * (high - low) or abs(high) * 0.05 or 0.5
    return low - margin, high + margin
