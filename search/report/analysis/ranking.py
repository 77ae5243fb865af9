"""Which trials did well: the winner, the best so far, and how a value is placed among the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from search.records.record import SearchRecord, TrialRecord

TONES = 7
"""Steps of the scale that colours trials from worst to best."""


def without_non_finite_values(record: SearchRecord) -> SearchRecord:
    """``record`` with objective values that are no finite numbers taken as missing."""
    trials = tuple(
        replace(t, value=None) if t.value is not None and not math.isfinite(t.value) else t
        for t in record.trials
    )
    return replace(record, trials=trials)


def winner(record: SearchRecord) -> TrialRecord | None:
    """The trial that was re-trained and tested, or else the best so far."""
    if record.outcome is None:
        return record.best
    return next((t for t in record.trials if t.number == record.outcome.trial), None)


def ranked(record: SearchRecord) -> list[TrialRecord]:
    """The trials that reached a value, the best first; failed ones do not count."""
    scored = [t for t in record.trials if t.value is not None and t.state != "failed"]
    return sorted(scored, key=lambda t: (loss_key(record, t.value), t.number))


def loss_key(record: SearchRecord, value: float | None) -> float:
    """A key that is smaller for better values."""
    if value is None:
        return math.inf
    return -value if record.direction == "maximize" else value


def tones(record: SearchRecord) -> dict[int, int]:
    """For each ranked trial its step on the colour scale, by rank: 0 the worst, ``TONES - 1`` the best."""
    order = ranked(record)
    last = max(len(order) - 1, 1)
    return {t.number: round((TONES - 1) * (1 - place / last)) for place, t in enumerate(order)}


def best_so_far(record: SearchRecord) -> list[tuple[int, float]]:
    """(trial number, best value up to it), where it changes."""
    steps: list[tuple[int, float]] = []
    for trial in sorted(ranked(record), key=lambda t: t.number):
        value = trial.value
        if value is not None and (not steps or loss_key(record, value) < loss_key(record, steps[-1][1])):
            steps.append((trial.number, value))
    return steps


def still_improving(record: SearchRecord) -> bool:
    """Whether the best value came with one of the last trials that ended."""
    finished = [t.number for t in record.trials if t.finished]
    steps = best_so_far(record)
    if len(finished) < 2 or not steps:
        return False
    return sum(number > steps[-1][0] for number in finished) <= 0.15 * len(finished)


def objective_domain(record: SearchRecord) -> tuple[float, float]:
    """Limits of an axis of the objective, for the better half of the trials and all that were not stopped early."""
    trials = ranked(record)
    half = trials[: math.ceil(len(trials) / 2)]
    shown = [t for t in trials if t.state == "complete" or t in half]
    return readable_domain(record, [t.value for t in shown if t.value is not None])


def readable_domain(
    record: SearchRecord, values: Sequence[float], usual: float = 0.85
) -> tuple[float, float]:
    """Limits of an axis on which the good values can be told apart: the worst outliers fall outside.

    ``usual`` is the share of ``values`` that certainly lie inside; of a few values that is all of them.
    """
    if not values:
        return 0.0, 1.0
    order = sorted(values, key=lambda v: loss_key(record, v))
    best, worst, common = order[0], order[-1], order[math.ceil(usual * (len(order) - 1))]
    limit = common + 0.4 * (common - best)
    if loss_key(record, worst) < loss_key(record, limit):
        limit = worst
    low, high = min(best, limit), max(best, limit)
    margin = 0.06 * (high - low) or abs(high) * 0.05 or 0.5
    return low - margin, high + margin
