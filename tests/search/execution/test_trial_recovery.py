"""What the ledger has of trials that died, hung or lacked memory, and which of them go on: without processes."""

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
    """Three trials that have trained an epoch in one engine, and what is told of them."""
    said: list[str] = []
    comebacks = TrialRecovery(RetryPolicy(ledger, most, 32, said.append), timeout, said.append)
    for _ in range(3):
        number = ledger.start(SPACE.suggest).number
        comebacks.trial_started(number)
        comebacks.epoch_reported(number, EpochResult(1, False, engine="first"))
    return comebacks, said


def dies(
    comebacks: TrialRecovery, number: int, reason: str = ENGINE_DIED, engine: str = "first", error: str = ""
) -> None:
    assert comebacks.trial_stopped(number, EpochResult(0, True, reason=reason, engine=engine, error=error))


def retries(ledger: Ledger) -> list[int]:
    return [t.retries for t in ledger.trials]


def alone_again_and_again(comebacks: TrialRecovery, number: int, reason: str, lives: int) -> None:
    for life in range(lives):
        assert comebacks.next_retry() == number
        comebacks.trial_started(number)
        dies(comebacks, number, reason, f"life {life}", "words")


def test_an_ordinary_end_is_none_of_its_business(ledger: Ledger) -> None:
    comebacks, _ = three(ledger)
    for result in (
        EpochResult(0, True),
        EpochResult(3, True, engine="first"),
        EpochResult(0, True, reason="diverged"),
        EpochResult(0, True, reason="crashed", error="x"),
    ):
        assert not comebacks.trial_stopped(0, result)


def test_a_trial_whose_own_process_dies_goes_on_at_most_so_often(ledger: Ledger) -> None:
    comebacks, said = three(ledger)
    for turn in range(3):
        comebacks.process_died(1, "words of Ray", hung=False)
        assert comebacks.next_retry() == (1 if turn < 2 else None)
        if turn < 2:
            comebacks.trial_started(1)
    trial = ledger.trial(1)
    assert (trial.state, trial.reason, trial.retries) == ("failed", "crashed", 2)
    assert trial.error == "words of Ray\nits process died, 3 times"
    assert said == [f"trial 1: its process died; retrying it (retry {n} of 2)" for n in (1, 2)]
    assert retries(ledger) == [0, 2, 0]


@pytest.mark.parametrize("most", [0, 1])
def test_the_next_run_of_the_command_goes_on_counting(
    ledger: Ledger, open_ledger: Callable[..., Ledger], most: int
) -> None:
    comebacks, _ = three(ledger, most)
    comebacks.process_died(2, "", hung=False)
    later = open_ledger(ledger.url)
    assert [t.retries for t in later.trials] == [0, 0, most]
    assert later.trial(2).finished == (most == 0)
    if most:
        later.resume(2, SPACE.suggest)
        assert later.trial(2).retries == 1
        assert not RetryPolicy(later, most, 32, lambda words: None).retry_or_finish(2, "crashed", "")
        assert later.trial(2).reason == "crashed"


def test_with_several_in_a_dead_engine_nobody_pays_and_the_bad_one_ends(ledger: Ledger) -> None:
    comebacks, said = three(ledger, most=1)
    for number in (0, 2, 1):
        dies(comebacks, number)
    assert retries(ledger) == [0, 0, 0]
    alone_again_and_again(comebacks, 2, ENGINE_DIED, lives=2)
    assert (ledger.trial(2).state, ledger.trial(2).reason) == ("failed", "crashed")
    assert comebacks.next_retry() == 1
    assert retries(ledger) == [0, 0, 1]
    assert said[0] == "an engine process crashed while running 3 trials; retrying them one at a time"


def test_a_lack_of_memory_is_tried_once_more_with_half_the_batch_and_then_told_to_the_sampler(
    ledger: Ledger, open_ledger: Callable[..., Ledger]
) -> None:
    comebacks, said = three(ledger, most=0)
    assert comebacks.trial_stopped(1, EpochResult(0, True, reason="out_of_memory", error="no memory left: …"))
    assert comebacks.next_retry() == 1
    again = open_ledger(ledger.url).trial(1)
    assert (again.state, again.batch_size, again.retries) == ("running", 16, 0)
    comebacks.trial_started(1)
    assert comebacks.trial_stopped(
        1, EpochResult(0, True, reason="out_of_memory", error="no memory left: still")
    )
    assert comebacks.next_retry() is None
    ended = open_ledger(ledger.url).trial(1)
    assert (ended.state, ended.reason, ended.error) == ("pruned", "out_of_memory", "no memory left: still")
    frozen = ledger._study.get_trials(deepcopy=False)[1]
    assert [value > 0 for value in frozen.constraints.values()] == [True]
    assert said == ["trial 1: no memory left; retrying it with batches of 16"]


def test_an_engine_killed_for_lack_of_memory_is_blamed_on_a_trial_only_if_that_was_alone(
    ledger: Ledger,
) -> None:
    comebacks, _ = three(ledger)
    comebacks.process_died(0, RAY_S_WORDS, hung=False)  # the monitor takes trials' own processes as well
    for number in (1, 2):
        dies(comebacks, number, ENGINE_OUT_OF_MEMORY)
    assert [(t.retries, t.batch_size) for t in ledger.trials] == [(0, None)] * 3
    alone_again_and_again(comebacks, 2, ENGINE_OUT_OF_MEMORY, lives=2)
    assert [(t.state, t.reason, t.batch_size) for t in ledger.trials] == [
        ("running", None, None),
        ("running", None, None),
        ("pruned", "out_of_memory", 16),
    ]


def test_a_batch_of_one_has_no_half(ledger: Ledger) -> None:
    ledger.start(SPACE.suggest)
    assert not RetryPolicy(ledger, 2, 1, lambda words: None).retry_or_finish(0, "out_of_memory", "")
    assert ledger.trial(0).reason == "out_of_memory"


def state(trial: TrialRecord) -> tuple[str, str | None, int]:
    return trial.state, trial.reason, trial.retries


def test_one_that_hangs_while_others_report_is_to_blame_and_they_come_back_at_once(ledger: Ledger) -> None:
    comebacks, _ = three(ledger, most=0, timeout=1000.0)
    dies(comebacks, 0, ENGINE_HUNG)
    assert state(ledger.trial(0)) == ("failed", "timed_out", 0)
    assert str(ledger.trial(0).error).endswith("it reported no epoch within trial_timeout, 1 time")
    dies(comebacks, 1)
    dies(comebacks, 2)
    assert [comebacks.next_retry(), comebacks.next_retry()] == [1, 2]  # beside each other
    assert retries(ledger) == [0, 0, 0]


def test_where_all_are_silent_nobody_knows_who_hangs(ledger: Ledger) -> None:
    comebacks, said = three(ledger, most=0, timeout=1e-9)
    dies(comebacks, 0, ENGINE_HUNG)
    dies(comebacks, 1, ENGINE_HUNG)
    dies(comebacks, 2)
    assert {t.state for t in ledger.trials} == {"running"}
    assert said == ["an engine process hung while running 3 trials; retrying them one at a time"]
    assert comebacks.next_retry() == 2
    comebacks.trial_started(2)
    assert comebacks.next_retry() is None
    dies(comebacks, 2, ENGINE_HUNG, "second")
    assert state(ledger.trial(2)) == ("failed", "timed_out", 0)
