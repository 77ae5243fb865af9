"""List the reasons for which a trial ends early, with their wordings for the terminal, the report and MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class EndReason:
    """The wordings of one reason.

    Attributes:
        short: a word or two, for a table.
        plural: what happened, after a number of trials: ``3 ran out of memory``.
        sentence: what happened, after ``It was``.
    """

    short: str
    plural: str
    sentence: str


END_REASONS: Mapping[str, EndReason] = {
    "scheduler": EndReason("pruned", "were stopped by the scheduler", "stopped early by the scheduler"),
    "diverged": EndReason("diverged", "diverged", "stopped because its loss diverged"),
    "time_budget": EndReason("out of time", "ran out of time", "stopped when the time budget was used up"),
    "out_of_memory": EndReason("no memory", "ran out of memory", "stopped because it ran out of memory"),
    "crashed": EndReason("crashed", "crashed", "stopped by an error"),
    "timed_out": EndReason("timed out", "timed out", "stopped because it reported nothing for too long"),
}
"""By the value of :attr:`search.records.record.TrialRecord.reason`."""
