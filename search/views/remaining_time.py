"""Estimates how long a search will still take."""

from __future__ import annotations

from search.records.record import SearchRecord

_MIN_FINISHED_WORK = 2.0
"""An estimate is shown once as much work as in this number of trials is done."""


def remaining_seconds(record: SearchRecord, elapsed: float) -> float | None:
    """Estimate the seconds until the last trial ends; None while too little is done.

    Work is counted in trials; a running trial counts with its share of epochs. The pace is the average of the whole
    search so far. The rest of a time budget is an upper limit.

    Args:
        elapsed: seconds that the search has run, earlier runs of the command included.
    """
    finished = sum(t.finished for t in record.trials)
    running = (t for t in record.trials if t.state == "running")
    half_done = sum(min(len(t.epochs) / (record.planned_epochs(t.method) or 1), 1.0) for t in running)
    work = finished + half_done
    if finished < 1 or work < _MIN_FINISHED_WORK or elapsed <= 0:
        return None
    left = max(record.requested - work, 0.0) * elapsed / work
    budget = record.config.get("time_budget")
    return min(left, max(budget - elapsed, 0.0)) if isinstance(budget, int | float) else left
