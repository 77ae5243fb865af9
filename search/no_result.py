"""What is said of a search whose trials all failed."""

from __future__ import annotations

from search.alike import ENOUGH, last_line
from search.records.record import SearchRecord


def failing_alike(record: SearchRecord) -> str:
    """The error that ended every trial of this run, once."""
    last = [t for t in record.trials if last_line(t)][-1]
    return (
        f"trials: the first {ENOUGH} all ended with the same error, so no more were started:\n  {last_line(last)}\n"
        f"`unfreeze status --verbose {record.name}` shows where it was raised (storage: {record.storage}). Once the "
        "cause is gone, the same command goes on with the trials that are left."
    )


def nothing_worked(record: SearchRecord) -> str:
    """Why there is no best trial, in the words of the first failure."""
    failed = [t for t in record.trials if t.error]
    count = len(record.trials)
    if not failed and record.stopped == "time_budget":
        return "time_budget: expected enough for one epoch of one trial; it ended before. Give more and run it again"
    if not failed:
        return f"trials: expected at least one with a result, received {count} without any"
    return (
        f"trials: none of {count} has a result; trial {failed[0].number} ended with: {last_line(failed[0])}"
    )
