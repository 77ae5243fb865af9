"""Test which trials are retried after a crash, a hang or a lack of memory, without any processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from search.config.space import core_space
from search.execution.engines.engine_client import ENGINE_DIED, ENGINE_HUNG, ENGINE_OUT_OF_MEMORY
from search.execution.engines.messages import EpochResult
from search.execution.trial_recovery import RetryPolicy, TrialRecovery
from search.ledger.ledger import Ledger, sqlite_url
from search.records.record import TrialRecord

SPACE = core_space(4)
RAY_S_WORDS = "1 worker(s) were killed due to the node running low on memory. Memory on the node was …"


@pytest.fixture
def ledger(tmp_path: Path, open_ledger: Callable[..., Ledger]) -> Ledger:
    return open_ledger(sqlite_url(tmp_path / "ledger.db"))


def three(ledger: Ledger, most: int = 2, timeout: float | None = None) -> tuple[TrialRecovery, list[str]]:
    """Three trials that have trained an epoch in one engine, and the messages about them."""
    messages: list[str] = []
    recovery = TrialRecovery(RetryPolicy(ledger, most, 32, messages.append), timeout, messages.append)
    for _ in range(3):
        number = ledger.start(SPACE.suggest).number
        recovery.trial_started(number)
        recovery.epoch_reported(number, EpochResult(1, False, engine="first"))
    return recovery, messages


def dies(
    recovery: TrialRecovery, number: int, reason: str = ENGINE_DIED, engine: str = "first", error: str = ""
) -> None:
    assert recovery.trial_stopped(number, EpochResult(0, True, reason=reason, engine=engine, error=error))


def retries(ledger: Ledger) -> list[int]:
    return [t.retries for t in ledger.trials]


def alone_again_and_again(recovery: TrialRecovery, number: int, reason: str, lives: int) -> None:
    for life in range(lives):
        assert recovery.next_retry() == number
        recovery.trial_started(number)
        dies(recovery, number, reason, f"life {life}", "words")


def test_an_ordinary_end_is_left_to_the_caller(ledger: Ledger) -> None:
    recovery, _ = three(ledger)
    for result in (
        EpochResult(0, True),
        EpochResult(3, True, engine="first"),
        EpochResult(0, True, reason="diverged"),
        EpochResult(0, True, reason="crashed", error="x"),
    ):
        assert not recovery.trial_stopped(0, result)


def test_a_trial_whose_own_process_dies_is_retried_at_most_max_retries_times(ledger: Ledger) -> None:
    recovery, messages = three(ledger)
    for turn in range(3):
        recovery.process_died(1, "words of Ray", hung=False)
        assert recovery.next_retry() == (1 if turn < 2 else None)
        if turn < 2:
            recovery.trial_started(1)
    trial = ledger.trial(1)
    assert (trial.state, trial.reason, trial.retries) == ("failed", "crashed", 2)
    assert trial.error == "words of Ray\nits process died, 3 times"
    assert messages == [f"trial 1: its process died; retrying it (retry {n} of 2)" for n in (1, 2)]
    assert retries(ledger) == [0, 2, 0]


@pytest.mark.parametrize("most", [0, 1])
def test_the_next_run_of_the_command_continues_the_count(
    ledger: Ledger, open_ledger: Callable[..., Ledger], most: int
) -> None:
    recovery, _ = three(ledger, most)
    recovery.process_died(2, "", hung=False)
    later = open_ledger(ledger.url)
    assert [t.retries for t in later.trials] == [0, 0, most]
    assert later.trial(2).finished == (most == 0)
    if most:
        later.resume(2, SPACE.suggest)
        assert later.trial(2).retries == 1
        assert not RetryPolicy(later, most, 32, lambda words: None).retry_or_finish(2, "crashed", "")
        assert later.trial(2).reason == "crashed"


def test_a_crash_of_a_shared_engine_costs_no_retry_and_the_bad_trial_fails(ledger: Ledger) -> None:
    recovery, messages = three(ledger, most=1)
    for number in (0, 2, 1):
        dies(recovery, number)
    assert retries(ledger) == [0, 0, 0]
    alone_again_and_again(recovery, 2, ENGINE_DIED, lives=2)
    assert (ledger.trial(2).state, ledger.trial(2).reason) == ("failed", "crashed")
    assert recovery.next_retry() == 1
    assert retries(ledger) == [0, 0, 1]
    assert messages[0] == "an engine process crashed while running 3 trials; retrying them one at a time"


def test_a_lack_of_memory_is_retried_with_half_the_batch_and_then_infeasible_for_the_sampler(
    ledger: Ledger, open_ledger: Callable[..., Ledger]
) -> None:
    recovery, messages = three(ledger, most=0)
    assert recovery.trial_stopped(1, EpochResult(0, True, reason="out_of_memory", error="no memory left: …"))
    assert recovery.next_retry() == 1
    again = open_ledger(ledger.url).trial(1)
    assert (again.state, again.batch_size, again.retries) == ("running", 16, 0)
    recovery.trial_started(1)
    assert recovery.trial_stopped(
        1, EpochResult(0, True, reason="out_of_memory", error="no memory left: still")
    )
    assert recovery.next_retry() is None
    ended = open_ledger(ledger.url).trial(1)
    assert (ended.state, ended.reason, ended.error) == ("pruned", "out_of_memory", "no memory left: still")
    frozen = ledger._study.get_trials(deepcopy=False)[1]
    assert [value > 0 for value in frozen.constraints.values()] == [True]
    assert messages == ["trial 1: no memory left; retrying it with batches of 16"]


def test_an_engine_killed_for_lack_of_memory_is_blamed_on_a_trial_only_if_it_was_alone(
    ledger: Ledger,
) -> None:
    recovery, _ = three(ledger)
    recovery.process_died(0, RAY_S_WORDS, hung=False)  # the monitor may also kill a trial's own process
    for number in (1, 2):
        dies(recovery, number, ENGINE_OUT_OF_MEMORY)
    assert [(t.retries, t.batch_size) for t in ledger.trials] == [(0, None)] * 3
    alone_again_and_again(recovery, 2, ENGINE_OUT_OF_MEMORY, lives=2)
    assert [(t.state, t.reason, t.batch_size) for t in ledger.trials] == [
        ("running", None, None),
        ("running", None, None),
        ("pruned", "out_of_memory", 16),
    ]


def test_a_batch_of_one_image_is_not_halved(ledger: Ledger) -> None:
    ledger.start(SPACE.suggest)
    assert not RetryPolicy(ledger, 2, 1, lambda words: None).retry_or_finish(0, "out_of_memory", "")
    assert ledger.trial(0).reason == "out_of_memory"


def state(trial: TrialRecord) -> tuple[str, str | None, int]:
    return trial.state, trial.reason, trial.retries


def test_a_trial_that_hangs_while_others_report_is_blamed_and_the_others_are_retried_at_once(
    ledger: Ledger,
) -> None:
    recovery, _ = three(ledger, most=0, timeout=1000.0)
    dies(recovery, 0, ENGINE_HUNG)
    assert state(ledger.trial(0)) == ("failed", "timed_out", 0)
    assert str(ledger.trial(0).error).endswith("it reported no epoch within trial_timeout, 1 time")
    dies(recovery, 1)
    dies(recovery, 2)
    assert [recovery.next_retry(), recovery.next_retry()] == [1, 2]  # at the same time
    assert retries(ledger) == [0, 0, 0]


def test_if_no_trial_reports_none_is_blamed_for_the_hang(ledger: Ledger) -> None:
    recovery, messages = three(ledger, most=0, timeout=1e-9)
    dies(recovery, 0, ENGINE_HUNG)
    dies(recovery, 1, ENGINE_HUNG)
    dies(recovery, 2)
    assert {t.state for t in ledger.trials} == {"running"}
    assert messages == ["an engine process hung while running 3 trials; retrying them one at a time"]
    assert recovery.next_retry() == 2
    recovery.trial_started(2)
    assert recovery.next_retry() is None
    dies(recovery, 2, ENGINE_HUNG, "second")
    assert state(ledger.trial(2)) == ("failed", "timed_out", 0)
