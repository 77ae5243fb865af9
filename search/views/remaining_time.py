"""How long a search will still take."""

from __future__ import annotations

from search.records.record import SearchRecord

_MIN_FINISHED_WORK = 2.0
"""Trials' worth of work that must be done before an estimate is worth showing."""


def remaining_seconds(record: SearchRecord, elapsed: float) -> float | None:
    """Estimate of the seconds until the last trial has ended; None while there is too little to tell.

    Work is counted in trials, a running one by its share of epochs; the pace is that of the whole search so
    far. A time budget in the config is an upper limit.
    """
    epochs = record.config.get("epochs")
    most = epochs if isinstance(epochs, int) and epochs > 0 else 1
    finished = sum(t.finished for t in record.trials)
    half_done = sum(min(len(t.epochs) / most, 1.0) for t in record.trials if t.state == "running")
    work = finished + half_done
    if finished < 1 or work < _MIN_FINISHED_WORK or elapsed <= 0:
        return None
    left = max(record.requested - work, 0.0) * elapsed / work
    budget = record.config.get("time_budget")
    return min(left, max(budget - elapsed, 0.0)) if isinstance(budget, int | float) else left
