"""Who is to blame for a dead engine, and who comes back when: all of it without processes."""

from __future__ import annotations

import random

import pytest

from search.execution.crash_attribution import CrashAttribution


def under_way(*numbers: int, engine: str | None = "first") -> CrashAttribution:
    """Trials that all have trained in one engine; in none that is known yet where ``engine`` is None."""
    casualties = CrashAttribution()
    for number in numbers:
        casualties.began(number)
        if engine is not None:
            casualties.heard(number, engine, trained=True)
    return casualties


def comes_back(casualties: CrashAttribution, engine: str, trained: bool = True) -> int | None:
    """The next trial, begun in ``engine``."""
    number = casualties.next()
    if number is not None:
        casualties.began(number)
        casualties.heard(number, engine, trained)
    return number


def test_a_trial_that_was_alone_is_to_blame() -> None:
    casualties = under_way(3)
    assert casualties.died(3, "first")
    assert not casualties.holding
    assert casualties.next() is None
    casualties.again(3, alone=True)
    assert casualties.next() == 3


@pytest.mark.parametrize("engine", ["first", None], ids=["all have trained", "none has reported yet"])
def test_of_several_none_is_to_blame_and_they_come_back_one_by_one(engine: str | None) -> None:
    casualties = under_way(1, 4, 2, engine=engine)
    assert not casualties.died(2, "first")
    assert casualties.next() is None  # the others have not said yet whether they were in it
    assert [casualties.died(4, "first"), casualties.died(1, "first")] == [False, False]
    assert comes_back(casualties, "second", trained=False) == 4
    assert casualties.next() is None
    assert casualties.holding
    casualties.heard(4, "second", trained=True)
    assert [comes_back(casualties, "second") for _ in range(3)] == [2, 1, None]
    assert not casualties.holding


def test_who_had_not_trained_since_it_came_back_is_alone_next_time_and_then_to_blame() -> None:
    casualties = under_way(1, 2, 3)
    for number in (1, 2, 3):
        casualties.died(number, "first")
    assert comes_back(casualties, "second") == 3
    assert comes_back(casualties, "second", trained=False) == 2
    assert [casualties.died(3, "second"), casualties.died(2, "second")] == [False, False]
    assert comes_back(casualties, "third", trained=False) == 2
    assert casualties.next() is None
    assert casualties.died(2, "third")
    casualties.again(2, alone=True)
    assert comes_back(casualties, "fourth", trained=False) == 2
    assert casualties.died(2, "fourth")
    casualties.ended(2)  # enough of it
    assert [comes_back(casualties, "fifth") for _ in range(3)] == [3, 1, None]


def test_the_one_that_was_suspected_joins_the_others_once_it_has_trained_alone() -> None:
    casualties = under_way(1, 2)
    for number in (1, 2):
        casualties.died(number, "first")
    assert comes_back(casualties, "second") == 2
    assert comes_back(casualties, "second", trained=False) == 1
    assert [casualties.died(1, "second"), casualties.died(2, "second")] == [False, False]
    assert [comes_back(casualties, "third") for _ in range(3)] == [1, 2, None]


def test_an_epoch_that_was_trained_before_the_death_and_told_after_it_excuses() -> None:
    casualties = under_way(1, 2)
    casualties.died(1, "first")
    casualties.heard(2, "first", trained=True)  # on its way when the engine died
    assert casualties.next() is None
    assert not casualties.died(2, "first")
    assert comes_back(casualties, "second") == 2


def test_trials_of_another_engine_are_not_waited_for() -> None:
    casualties = under_way(1, 2)
    casualties.began(7)
    casualties.heard(7, "elsewhere", trained=True)
    casualties.died(1, "first")
    casualties.died(2, "first")
    assert comes_back(casualties, "second") == 2


def test_one_that_has_reported_nothing_yet_may_turn_out_to_be_elsewhere() -> None:
    casualties = under_way(1)
    casualties.began(7)
    assert not casualties.died(1, "first")
    assert casualties.next() is None
    casualties.heard(7, "elsewhere", trained=True)
    assert comes_back(casualties, "second") == 1


def test_neighbours_of_one_that_hung_come_back_freely() -> None:
    casualties = under_way(1, 2, 3)
    casualties.stopped(2, "first")
    casualties.again(2, alone=False)
    assert not casualties.holding
    assert [casualties.died(1, "first"), casualties.died(3, "first")] == [False, False]
    assert [comes_back(casualties, "second", trained=False) for _ in range(4)] == [2, 1, 3, None]


def test_one_that_dies_by_itself_lets_the_others_be() -> None:
    casualties = under_way(1, 2)
    casualties.ended(1)
    casualties.again(1, alone=False)
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
            number = casualties.next()
            if number is None and (casualties.holding or not new):
                break
            inside.append(number if number is not None else new.pop(0))
            casualties.began(inside[-1])
        if not inside:
            break
        number = chance.choice(inside)
        if bad.get(number) == epochs[number]:
            deaths, lost = deaths + 1, chance.sample(inside, len(inside))
            for one in lost:
                died_with[one] += one != number
                if casualties.died(one, f"life {life}"):
                    retries[one] += 1
                    if retries[one] <= 2:
                        casualties.again(one, alone=True)
                    else:
                        ended.add(one)
            inside, life = [], life + 1
            continue
        epochs[number] += 1
        casualties.heard(number, f"life {life}", trained=True)
        if epochs[number] == 6:
            casualties.ended(number)
            inside.remove(number)
            ended.add(number)
    assert ended == set(range(12))
    assert {n: retries[n] for n in range(12) if retries[n]} == dict.fromkeys(bad, 3)
    assert deaths <= 2 * (2 + 3)
    assert all(died_with[n] <= 2 * 2 for n in range(12) if n not in bad), died_with
