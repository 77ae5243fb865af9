"""Test when ``--patience`` counts a trial as an improvement."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from search.execution.stop_conditions import Patience
from search.records.metrics import Direction
from search.records.record import TrialRecord

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def ended(number: int, value: float | None, minute: int) -> TrialRecord:
    moment = BEGAN + timedelta(minutes=minute)
    return TrialRecord(number, "complete", "finetune", {}, value=value, ended=moment)


@pytest.mark.parametrize(
    ("direction", "values", "since"),
    [
        ("maximize", [0.1, 0.5, 0.4, 0.5, None], 3),
        ("minimize", [0.1, 0.5, 0.4], 2),
        ("maximize", [], 0),
        ("maximize", [None, None], 2),
        ("maximize", [0.1, 0.2, 0.3], 0),
    ],
)
def test_patience_counts_the_trials_that_ended_since_the_best(
    direction: Direction, values: list[float | None], since: int
) -> None:
    one_by_one, at_once = Patience(), Patience()
    trials = [ended(number, value, number) for number, value in enumerate(values)]
    for trial in trials:
        one_by_one.trial_ended(trial, direction)
    at_once.recount(trials, direction)
    assert (one_by_one.since, at_once.since) == (since, since)


def test_patience_uses_the_order_in_which_trials_ended() -> None:
    patience = Patience()
    running = TrialRecord(3, "running", "finetune", {}, value=0.9)
    patience.recount(
        [ended(0, 0.5, minute=9), ended(1, 0.4, minute=1), ended(2, 0.3, minute=2), running], "maximize"
    )
    assert patience.since == 0
