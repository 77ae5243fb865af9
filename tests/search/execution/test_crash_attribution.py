"""Test which trial is blamed for a dead engine and which trials are retried when, without any processes."""

from __future__ import annotations

import random

import pytest

from search.execution.crash_attribution import CrashAttribution


def running_in(*numbers: int, engine: str | None = "first") -> CrashAttribution:
    """Running trials that have all trained in one engine; ``engine`` is None if none has reported yet."""
    attribution = CrashAttribution()
    for number in numbers:
        attribution.trial_started(number)
        if engine is not None:
            attribution.epoch_reported(number, engine, trained=True)
    return attribution


def retry(attribution: CrashAttribution, engine: str, trained: bool = True) -> int | None:
    """Start the next trial to retry in ``engine``."""
    number = attribution.next_retry()
    if number is not None:
        attribution.trial_started(number)
        attribution.epoch_reported(number, engine, trained)
    return number


def test_a_trial_that_was_alone_in_its_engine_is_blamed() -> None:
    attribution = running_in(3)
    assert attribution.engine_died(3, "first")
    assert not attribution.holding
    assert attribution.next_retry() is None
    attribution.requeue(3, alone=True)
    assert attribution.next_retry() == 3


@pytest.mark.parametrize("engine", ["first", None], ids=["all have trained", "none has reported yet"])
def test_of_several_trials_none_is_blamed_and_they_are_retried_one_at_a_time(engine: str | None) -> None:
    attribution = running_in(1, 4, 2, engine=engine)
    assert not attribution.engine_died(2, "first")
    assert attribution.next_retry() is None  # the others have not reported yet whether they were in it
    assert [attribution.engine_died(4, "first"), attribution.engine_died(1, "first")] == [False, False]
    assert retry(attribution, "second", trained=False) == 4
    assert attribution.next_retry() is None
    assert attribution.holding
    attribution.epoch_reported(4, "second", trained=True)
    assert [retry(attribution, "second") for _ in range(3)] == [2, 1, None]
    assert not attribution.holding


def test_a_trial_that_has_not_trained_since_its_retry_is_retried_alone_and_then_blamed() -> None:
    attribution = running_in(1, 2, 3)
    for number in (1, 2, 3):
        attribution.engine_died(number, "first")
    assert retry(attribution, "second") == 3
    assert retry(attribution, "second", trained=False) == 2
    assert [attribution.engine_died(3, "second"), attribution.engine_died(2, "second")] == [False, False]
    assert retry(attribution, "third", trained=False) == 2
    assert attribution.next_retry() is None
    assert attribution.engine_died(2, "third")
    attribution.requeue(2, alone=True)
    assert retry(attribution, "fourth", trained=False) == 2
    assert attribution.engine_died(2, "fourth")
    attribution.trial_ended(2)  # it is given up
    assert [retry(attribution, "fifth") for _ in range(3)] == [3, 1, None]


def test_the_suspect_joins_the_others_once_it_has_trained_alone() -> None:
    attribution = running_in(1, 2)
    for number in (1, 2):
        attribution.engine_died(number, "first")
    assert retry(attribution, "second") == 2
    assert retry(attribution, "second", trained=False) == 1
    assert [attribution.engine_died(1, "second"), attribution.engine_died(2, "second")] == [False, False]
    assert [retry(attribution, "third") for _ in range(3)] == [1, 2, None]


def test_an_epoch_trained_before_the_death_and_reported_after_it_clears_the_suspect() -> None:
    attribution = running_in(1, 2)
    attribution.engine_died(1, "first")
    attribution.epoch_reported(2, "first", trained=True)  # on its way when the engine died
    assert attribution.next_retry() is None
    assert not attribution.engine_died(2, "first")
    assert retry(attribution, "second") == 2


def test_trials_of_another_engine_delay_no_retry() -> None:
    attribution = running_in(1, 2)
    attribution.trial_started(7)
    attribution.epoch_reported(7, "elsewhere", trained=True)
    attribution.engine_died(1, "first")
    attribution.engine_died(2, "first")
    assert retry(attribution, "second") == 2


def test_a_trial_without_reports_may_turn_out_to_be_in_another_engine() -> None:
    attribution = running_in(1)
    attribution.trial_started(7)
    assert not attribution.engine_died(1, "first")
    assert attribution.next_retry() is None
    attribution.epoch_reported(7, "elsewhere", trained=True)
    assert retry(attribution, "second") == 1


def test_neighbours_of_a_hung_trial_are_retried_at_any_time() -> None:
    attribution = running_in(1, 2, 3)
    attribution.engine_stopped(2, "first")
    attribution.requeue(2, alone=False)
    assert not attribution.holding
    assert [attribution.engine_died(1, "first"), attribution.engine_died(3, "first")] == [False, False]
    assert [retry(attribution, "second", trained=False) for _ in range(4)] == [2, 1, 3, None]


def test_a_trial_whose_own_process_dies_does_not_affect_others() -> None:
    attribution = running_in(1, 2)
    attribution.trial_ended(1)
    attribution.requeue(1, alone=False)
    assert retry(attribution, "first", trained=False) == 1
    assert not attribution.holding


@pytest.mark.parametrize("seed", range(40))
def test_neighbours_of_bad_trials_lose_few_epochs_and_are_never_blamed(seed: int) -> None:
    """Simulate trials of 6 epochs, four at a time; two of them kill their engine whenever they reach some epoch."""
    chance = random.Random(seed)
    bad = {number: chance.randrange(6) for number in chance.sample(range(12), 2)}
    attribution, retries, epochs = (
        CrashAttribution(),
        dict.fromkeys(range(12), 0),
        dict.fromkeys(range(12), 0),
    )
    new, inside, life, deaths, ended = list(range(12)), [], 0, 0, set[int]()
    died_with = dict.fromkeys(range(12), 0)
    for _ in range(3000):
        while len(inside) < 4:
            number = attribution.next_retry()
            if number is None and (attribution.holding or not new):
                break
            inside.append(number if number is not None else new.pop(0))
            attribution.trial_started(inside[-1])
        if not inside:
            break
        number = chance.choice(inside)
        if bad.get(number) == epochs[number]:
            deaths, lost = deaths + 1, chance.sample(inside, len(inside))
            for one in lost:
                died_with[one] += one != number
                if attribution.engine_died(one, f"life {life}"):
                    retries[one] += 1
                    if retries[one] <= 2:
                        attribution.requeue(one, alone=True)
                    else:
                        ended.add(one)
            inside, life = [], life + 1
            continue
        epochs[number] += 1
        attribution.epoch_reported(number, f"life {life}", trained=True)
        if epochs[number] == 6:
            attribution.trial_ended(number)
            inside.remove(number)
            ended.add(number)
    assert ended == set(range(12))
    assert {n: retries[n] for n in range(12) if retries[n]} == dict.fromkeys(bad, 3)
    assert deaths <= 2 * (2 + 3)
    assert all(died_with[n] <= 2 * 2 for n in range(12) if n not in bad), died_with
