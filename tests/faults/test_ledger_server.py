"""Test a ledger on a PostgreSQL server that is restarted, stopped and shared during a search."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgresql_server import Postgres
from search_command import SearchCommand, epochs, expect_delivered, expect_whole

from search.config.environment import SERVICE_PATIENCE
from search.ledger.database import open_for_reading
from search.ledger.driver_lease import EXPIRY_SECONDS
from search.ledger.ledger import Ledger
from search.tracking.stores import default_tracking_uri
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import LedgerError

pytestmark = pytest.mark.slow  # PostgreSQL is a system package
TRIALS = 4
LONG = ("--trials", str(TRIALS), "--epochs", "10", "--scheduler", "none", "--sampler", "random")


@pytest.fixture
def command(postgresql: Postgres, tmp_path: Path) -> Iterator[Callable[..., SearchCommand]]:
    """Return a function that creates commands which share a ledger on the server and an MLflow store."""
    url = postgresql.new_database()
    store = default_tracking_uri(tmp_path / "tracking")
    made: list[SearchCommand] = []

    def new(name: str, *arguments: str) -> SearchCommand:
        made.append(SearchCommand(tmp_path / name, (*LONG, "--tracking-uri", store, *arguments), ledger=url))
        return made[-1]

    yield new
    for each in made:
        each.kill()


def test_a_ledger_on_a_server_is_the_same_as_in_a_file(
    postgresql: Postgres, tmp_path: Path, open_ledger: Callable[..., Ledger]
) -> None:
    from search.ledger.ledger import sqlite_url

    trials = []
    for url in (postgresql.new_database(), sqlite_url(tmp_path / "ledger.db")):
        ledger = open_ledger(url, sampler="tpe", seed=3)
        for number in range(14):
            ledger.start(lambda trial: {"x": trial.suggest_float("x", 0, 1)})
            for epoch in (1, 2):
                ledger.report(number, EpochMetrics(epoch, epoch / 2 - number / 100, 0.5, float("nan"), 0.1))
            ledger.finish(number, "pruned" if number % 5 == 4 else "complete", reason="ü 字 \u0007")
        trials.append(
            [(t.params, t.value, t.state, t.reason, str(t.epochs)) for t in open_ledger(url, seed=3).trials]
        )
    assert trials[0] == trials[1]


def test_writing_waits_for_a_server_that_is_away_and_repeats_nothing(
    postgresql: Postgres, open_ledger: Callable[..., Ledger]
) -> None:
    url = postgresql.new_database()
    ledger = open_ledger(url)
    for number in range(3):
        ledger.start(lambda trial: {"x": trial.suggest_float("x", 0, 1)})
        postgresql.stop()
        back = threading.Timer(1, postgresql.start)
        back.start()
        try:
            ledger.report(number, EpochMetrics(1, 0.5, 1.0, 1.0, 0.1))
            ledger.set_attribute("elapsed", float(number))
        finally:
            back.join()
        ledger.finish(number, "complete")
    again = open_ledger(url)
    assert [(t.state, len(t.epochs)) for t in again.trials] == [("complete", 1)] * 3
    assert again.attribute("elapsed") == 2.0


def test_readers_that_look_again_and_again_leave_no_connections_open(
    postgresql: Postgres, open_ledger: Callable[..., Ledger]
) -> None:
    url = postgresql.new_database()
    ledger = open_ledger(url)
    ledger.start(lambda trial: {"x": trial.suggest_float("x", 0, 1)})
    looks = [
        open_for_reading(url, ledger.name) for _ in range(60)
    ]  # twice as many connections as the server accepts
    assert {len(study.get_trials()) for study in looks} == {1}


def test_a_server_that_is_not_there_is_named_without_the_password(
    postgresql: Postgres, open_ledger: Callable[..., Ledger]
) -> None:
    url = postgresql.url("no_such_database")
    with pytest.raises(LedgerError, match="ledger: expected a database that can be opened") as told:
        open_ledger(url)
    assert "no_such_database" in str(told.value)
    assert "secret" not in str(told.value)


@pytest.mark.timeout(1200)
def test_a_search_survives_restarts_of_the_server_and_a_kill_of_the_driver(
    postgresql: Postgres, command: Callable[..., SearchCommand]
) -> None:
    search = command("one")
    search.environment = {SERVICE_PATIENCE: "30"}
    search.start()
    search.wait_for(lambda record: epochs(record) >= 4)
    postgresql.stop()  # as in a crash
    postgresql.start()
    seen = epochs(search.wait_for(lambda record: epochs(record) >= 10))
    postgresql.stop()
    time.sleep(EXPIRY_SECONDS + 2)
    postgresql.start()
    search.wait_for(lambda record: epochs(record) >= seen + 6)
    search.kill()
    seen = epochs(search.record() or pytest.fail("no record"))
    process = search.start()
    search.wait_for(lambda record: epochs(record) >= seen + 4)
    postgresql.stop()
    try:
        assert process.wait(180) == 1, search.log()  # unreachable for longer than the search waits
    finally:
        postgresql.start()
    assert "can't be read or written" in search.log()
    assert "Traceback" not in search.log()
    search.run()
    expect_delivered(expect_whole(search.record(), TRIALS))


@pytest.mark.timeout(1200)
def test_a_suspended_driver_is_replaced_and_stops_when_it_wakes(
    command: Callable[..., SearchCommand],
) -> None:
    sleeper, other = (command(name) for name in ("sleeper", "other"))
    sleeper.start()
    sleeper.wait_for(lambda record: epochs(record) >= 3)
    sleeper.signal_all(signal.SIGSTOP)
    # Read after the signal: epochs that the sleeper had reported by then must not count as those of the other driver.
    seen = epochs(sleeper.record() or pytest.fail("no record"))
    other.start()
    other.wait_for(lambda record: epochs(record) > seen)
    sleeper.signal_all(signal.SIGCONT)
    assert sleeper.process is not None
    assert sleeper.process.wait(120) == 1, sleeper.log()
    assert f"was taken over by process {other.process.pid if other.process else 0}" in sleeper.log()
    assert "Traceback" not in sleeper.log()
    assert other.process is not None
    assert other.process.wait(400) == 0, other.log()
    expect_delivered(expect_whole(other.record(), TRIALS))
