"""Test that samplers avoid configurations that fail, and that identical failures are recognised."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from search.config.space import core_space
from search.execution.stop_conditions import MIN_IDENTICAL_FAILURES, IdenticalFailures
from search.ledger.ledger import Ledger, sqlite_url
from search.records.record import State, TrialRecord
from trainables.epoch_metrics import EpochMetrics

SPACE = core_space(16)


def infeasible_share(ledger: Ledger, reason: str) -> float:
    """The share of the last 20 of 40 proposals that are too deep, if such trials end for ``reason``."""
    infeasible: list[bool] = []
    for _ in range(40):
        record = ledger.start(SPACE.suggest)
        depth = int(record.params["unfreeze_depth"])
        infeasible.append(depth > 5)
        if depth > 5:
            state: State = "failed" if reason == "crashed" else "pruned"
            ledger.finish(record.number, state, reason=reason, error="no memory left")
        else:
            ledger.report(record.number, EpochMetrics(1, 0.5 + depth / 20, 1.0, 1.0, 0.1))
            ledger.finish(record.number, "complete")
    return statistics.fmean(infeasible[20:])


@pytest.mark.slow
def test_proposals_avoid_configurations_that_did_not_work(
    tmp_path: Path, open_ledger: Callable[..., Ledger]
) -> None:
    def mean_share(reason: str) -> float:
        urls = [sqlite_url(tmp_path / f"{reason}-{seed}.db") for seed in range(3)]
        ledgers = [open_ledger(url, sampler="tpe", seed=seed) for seed, url in enumerate(urls)]
        return statistics.fmean(infeasible_share(ledger, reason) for ledger in ledgers)

    without = mean_share("crashed")
    for reason in ("out_of_memory", "diverged"):
        assert mean_share(reason) < 0.7 * without, reason


def trial(
    number: int, state: State = "failed", error: str | None = "Traceback:\n  x\nOSError: gone"
) -> TrialRecord:
    return TrialRecord(number, state, "finetune", {}, error=error)


def test_the_same_error_in_every_trial_so_far_is_reported_once_there_are_enough() -> None:
    alike = IdenticalFailures()
    for number in range(MIN_IDENTICAL_FAILURES):
        assert alike.error is None
        alike.trial_ended(
            trial(number, error=f"Traceback (most recent call last):\n  line {number}\nOSError: gone\n")
        )
    assert alike.error == "OSError: gone"
    alike.trial_ended(trial(MIN_IDENTICAL_FAILURES, "complete", None))
    assert alike.error is None


@pytest.mark.parametrize(
    "odd",
    [
        trial(1, "complete", None),
        trial(1, "pruned", "epoch 1: train_loss=nan"),
        trial(1, error="ValueError: x"),
        trial(1, error=" \n"),
    ],
)
def test_one_trial_with_another_end_lets_the_search_continue(odd: TrialRecord) -> None:
    for place in range(MIN_IDENTICAL_FAILURES):
        alike = IdenticalFailures()
        for number in range(2 * MIN_IDENTICAL_FAILURES):
            alike.trial_ended(odd if number == place else trial(number))
        assert alike.error is None
