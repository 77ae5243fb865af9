"""What is known of the winner and of other points of the front, in the ledger: it is found out once.

What is said of a search whose trials all failed.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.execution.stop_conditions import MIN_IDENTICAL_FAILURES, last_error_line
from search.ledger.attributes import StudyKey
from search.ledger.format_version import explain_unreadable
from search.records.record import Outcome, SearchRecord
from search.records.results import outcome_from_json, outcome_to_json
from search.study.phase import Phase


def same_error_message(record: SearchRecord) -> str:
    """The error that ended every trial of this run, once."""
    last = [t for t in record.trials if last_error_line(t)][-1]
    return (
        f"trials: the first {MIN_IDENTICAL_FAILURES} all ended with the same error, so no more were "
        f"started:\n  {last_error_line(last)}\n"
        f"`unfreeze status --verbose {record.name}` shows where it was raised (storage: {record.storage}). Once the "
        "cause is gone, the same command goes on with the trials that are left."
    )


def no_result_message(record: SearchRecord) -> str:
    """Why there is no best trial, in the words of the first failure."""
    failed = [t for t in record.trials if t.error]
    count = len(record.trials)
    if not failed and record.stopped == "time_budget":
        return "time_budget: expected enough for one epoch of one trial; it ended before. Give more and run it again"
    if not failed:
        return f"trials: expected at least one with a result, received {count} without any"
    return f"trials: none of {count} has a result; trial {failed[0].number} ended with: {last_error_line(failed[0])}"


def save_outcomes(search: Phase, outcomes: Sequence[Outcome]) -> None:
    """Write outcomes into the ledger, the winner's last: without it the others count for nothing."""
    search.outcome, search.alternatives = outcomes[0], tuple(outcomes[1:])
    if search.config.objective:
        search.ledger.set_attribute(StudyKey.ALTERNATIVES, [outcome_to_json(o) for o in search.alternatives])
    search.ledger.set_attribute(StudyKey.OUTCOME, outcome_to_json(outcomes[0]))


def load_outcomes(search: Phase) -> tuple[Outcome | None, tuple[Outcome, ...]]:
    """The winner's, and those of other points of the front."""
    kept, others = (
        search.ledger.attribute(StudyKey.OUTCOME),
        search.ledger.attribute(StudyKey.ALTERNATIVES) or [],
    )
    with explain_unreadable(search.name):
        if not kept:
            return None, ()
        return outcome_from_json(kept), tuple(map(outcome_from_json, others))
