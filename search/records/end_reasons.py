"""List the wordings of how trials and searches end, for the terminal, notebooks, the report and MLflow.

:data:`END_REASONS` are the reasons for which a trial ends early, and :data:`STOP_REASONS` those for which a search ends
early. :data:`VERDICTS` are the results of comparing the winner with the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


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


@dataclass(frozen=True)
class StopReason:
    """The wordings of why a search ended before its last trial.

    Attributes:
        clause: what happened, after ``because``, in the report.
        line: a line of the summary in the terminal.
    """

    clause: str
    line: str


STOP_REASONS: Mapping[str, StopReason] = {
    "converged": StopReason(
        "the search had converged", "stopped early: no better trial in a while (--patience)"
    ),
    "time_budget": StopReason("the time budget was used up", "stopped early: the time budget is spent"),
    # A search that stops for this reason fails with an error, so that the terminal shows no summary.
    "failing_alike": StopReason("the first trials all failed with the same error", "failing_alike"),
}
"""By the value of :attr:`search.records.record.SearchRecord.stopped`."""


@dataclass(frozen=True)
class VerdictWording:
    """The wordings of a verdict on the transfer.

    Attributes:
        title: the first screen of the report.
        note: a clause for descriptions in MLflow.
        short: a clause for notebooks.
        line: a line of the summary in the terminal; ``{}`` stands for the baseline.
        tone: whether the verdict is good news: ``good``, ``plain`` or ``bad``.
    """

    title: str
    note: str
    short: str
    line: str
    tone: Literal["good", "plain", "bad"]


VERDICTS: Mapping[str, VerdictWording] = {
    "helps": VerdictWording(
        title="Transfer helps",
        note="transfer helps",
        short="transfer helps",
        line="transfer helps",
        tone="good",
    ),
    "no difference": VerdictWording(
        title="No difference",
        note="transfer makes no difference",
        short="no difference",
        line="no difference: transfer neither helps nor hurts here",
        tone="plain",
    ),
    "negative transfer": VerdictWording(
        title="Negative transfer",
        note="training from scratch is better",
        short="training from scratch is better",
        line="negative transfer: {} is better here",
        tone="bad",
    ),
}
"""By the value of :attr:`search.records.record.Outcome.verdict`."""

PROBE_VERDICTS: Mapping[str, VerdictWording] = {
    "enough": VerdictWording(
        title="The probe is enough",
        note="the frozen probe is enough",
        short="the frozen probe is enough",
        line="the frozen probe is enough: no other model is clearly better",
        tone="plain",
    ),
    "helps": VerdictWording(
        title="Better than the probe",
        note="better than the frozen probe",
        short="better than the frozen probe",
        line="better than the frozen probe",
        tone="good",
    ),
    "no difference": VerdictWording(
        title="No clear gain",
        note="not clearly better than the frozen probe",
        short="not clearly better than the frozen probe",
        line="not clearly better than the frozen probe, which is simpler",
        tone="plain",
    ),
    "worse": VerdictWording(
        title="Worse than the probe",
        note="worse than the frozen probe",
        short="worse than the frozen probe",
        line="worse than the frozen probe on the test images",
        tone="bad",
    ),
}
"""By the value of :func:`search.records.stats.intervals.probe_verdict`."""

PROBE_PREFERRED = "the simplest model, and none of the others is better by more than one standard error"
"""Why the frozen probe wins although another candidate has a better mean."""
