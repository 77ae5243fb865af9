"""Who is to blame for a dead engine, and who comes back when: all of it without processes."""

from __future__ import annotations

import random

import pytest

from search.execution.crash_attribution import CrashAttribution


def under_way(*numbers: int, engine: str | None = "first") -> CrashAttribution:
    """Trials that all have trained in one engine; in none that is known yet where ``engine`` is None."""
    casualties = CrashAttribution()
    for number in numbers:
        casualties.trial_started(number)
        if engine is not None:
            casualties.epoch_reported(number, engine, trained=True)
    return casualties


def comes_back(casualties: CrashAttribution, engine: str, trained: bool = True) -> int | None:
    """The next trial, begun in ``engine``."""
    number = casualties.next_retry()
    if number is not None:
        casualties.trial_started(number)
        casualties.epoch_reported(number, engine, trained)
    return number


def test_a_trial_that_was_alone_is_to_blame() -> None:
    casualties = under_way(3)
    assert casualties.engine_died(3, "first")
    assert not casualties.holding
    assert casualties.next_retry() is None
    casualties.requeue(3, alone=True)
    assert casualties.next_retry() == 3


@pytest.mark.parametrize("engine", ["first", None], ids=["all have trained", "none has reported yet"])
def test_of_several_none_is_to_blame_and_they_come_back_one_by_one(engine: str | None) -> None:
    casualties = under_way(1, 4, 2, engine=engine)
    assert not casualties.engine_died(2, "first")
    assert casualties.next_retry() is None  # the others have not said yet whether they were in it
    assert [casualties.engine_died(4, "first"), casualties.engine_died(1, "first")] == [False, False]
    assert comes_back(casualties, "second", trained=False) == 4
    assert casualties.next_retry() is None
    assert casualties.holding
    casualties.epoch_reported(4, "second", trained=True)
    assert [comes_back(casualties, "second") for _ in range(3)] == [2, 1, None]
    assert not casualties.holding


def test_who_had_not_trained_since_it_came_back_is_alone_next_time_and_then_to_blame() -> None:
    casualties = under_way(1, 2, 3)
    for number in (1, 2, 3):
        casualties.engine_died(number, "first")
    assert comes_back(casualties, "second") == 3
    assert comes_back(casualties, "second", trained=False) == 2
    assert [casualties.engine_died(3, "second"), casualties.engine_died(2, "second")] == [False, False]
    assert comes_back(casualties, "third", trained=False) == 2
    assert casualties.next_retry() is None
    assert casualties.engine_died(2, "third")
    casualties.requeue(2, alone=True)
    assert comes_back(casualties, "fourth", trained=False) == 2
    assert casualties.engine_died(2, "fourth")
    casualties.trial_ended(2)  # enough of it
    assert [comes_back(casualties, "fifth") for _ in range(3)] == [3, 1, None]


def test_the_one_that_was_suspected_joins_the_others_once_it_has_trained_alone() -> None:
    casualties = under_way(1, 2)
    for number in (1, 2):
        casualties.engine_died(number, "first")
    assert comes_back(casualties, "second") == 2
    assert comes_back(casualties, "second", trained=False) == 1
    assert [casualties.engine_died(1, "second"), casualties.engine_died(2, "second")] == [False, False]
    assert [comes_back(casualties, "third") for _ in range(3)] == [1, 2, None]


def test_an_epoch_that_was_trained_before_the_death_and_told_after_it_excuses() -> None:
    casualties = under_way(1, 2)
    casualties.engine_died(1, "first")
    casualties.epoch_reported(2, "first", trained=True)  # on its way when the engine died
    assert casualties.next_retry() is None
    assert not casualties.engine_died(2, "first")
    assert comes_back(casualties, "second") == 2


def test_trials_of_another_engine_are_not_waited_for() -> None:
    casualties = under_way(1, 2)
    casualties.trial_started(7)
    casualties.epoch_reported(7, "elsewhere", trained=True)
    casualties.engine_died(1, "first")
    casualties.engine_died(2, "first")
    assert comes_back(casualties, "second") == 2


def test_one_that_has_reported_nothing_yet_may_turn_out_to_be_elsewhere() -> None:
    casualties = under_way(1)
    casualties.trial_started(7)
    assert not casualties.engine_died(1, "first")
    assert casualties.next_retry() is None
    casualties.epoch_reported(7, "elsewhere", trained=True)
    assert comes_back(casualties, "second") == 1


def test_neighbours_of_one_that_hung_come_back_freely() -> None:
    casualties = under_way(1, 2, 3)
    casualties.engine_stopped(2, "first")
    casualties.requeue(2, alone=False)
    assert not casualties.holding
    assert [casualties.engine_died(1, "first"), casualties.engine_died(3, "first")] == [False, False]
    assert [comes_back(casualties, "second", trained=False) for _ in range(4)] == [2, 1, 3, None]


def test_one_that_dies_by_itself_lets_the_others_be() -> None:
    casualties = under_way(1, 2)
    casualties.trial_ended(1)
    casualties.requeue(1, alone=False)
    assert comes_back(casualties, "first", trained=False) == 1
    assert not casualties.holding


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_bad_neighbours_lose_little_and_pay_nothing(seed: int) -> None:
    """Trials of 6 epochs, four at a time; two of them kill their engine whenever they come to some epoch."""
    chance = random.Random(seed)
    bad = {number: chance.randrange(6) for number in chance.sample(range(12), 2)}
    casualties, retries, epochs = CrashAttribution(), dict.fromkeys(range(12), 0), dict.fromkeys(range(12), 0)
    new, inside, life, deaths, ended = list(range(12)), [], 0, 0, set[int]()
    died_with = dict.fromkeys(range(12), 0)
    for _ in range(3000):
        while len(inside) < 4:
            number = casualties.next_retry()
            if number is None and (casualties.holding or not new):
                break
            inside.append(number if number is not None else new.pop(0))
            casualties.trial_started(inside[-1])
        if not inside:
            break
        number = chance.choice(inside)
        if bad.get(number) == epochs[number]:
            deaths, lost = deaths + 1, chance.sample(inside, len(inside))
            for one in lost:
                died_with[one] += one != number
                if casualties.engine_died(one, f"life {life}"):
                    retries[one] += 1
                    if retries[one] <= 2:
                        casualties.requeue(one, alone=True)
                    else:
                        ended.add(one)
            inside, life = [], life + 1
            continue
        epochs[number] += 1
        casualties.epoch_reported(number, f"life {life}", trained=True)
        if epochs[number] == 6:
            casualties.trial_ended(number)
            inside.remove(number)
            ended.add(number)
    assert ended == set(range(12))
    assert {n: retries[n] for n in range(12) if retries[n]} == dict.fromkeys(bad, 3)
    assert deaths <= 2 * (2 + 3)
    assert all(died_with[n] <= 2 * 2 for n in range(12) if n not in bad), died_with
