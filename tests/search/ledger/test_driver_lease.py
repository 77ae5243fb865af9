"""Test that one process at a time drives a search on a shared database, even if a driver dies or is suspended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.ledger.attributes import StudyKey
from search.ledger.driver_lease import Lease, boot_id
from search.ledger.driver_lease_row import LeaseHolder, LeaseRow
from search.ledger.ledger import Ledger, sqlite_url
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import LeaseLost, LedgerError, SearchError

NewRow = Callable[[], LeaseRow]
OpenLedger = Callable[..., Ledger]

QUICK: dict[str, Any] = {"heartbeat_seconds": 0.2, "expiry_seconds": 1.5}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that several drivers share."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "shared.db")
    return str(request.getfixturevalue("postgresql").new_database())


@pytest.fixture
def row(url: str) -> Iterator[NewRow]:
    """Return a function that opens the row of the one search, with a connection of its own for each call."""
    opened: list[LeaseRow] = []

    def new() -> LeaseRow:
        opened.append(LeaseRow(url, "photos"))
        return opened[-1]

    yield new
    for each in opened:
        each.close()


def holder(**changes: Any) -> LeaseHolder:
    return replace(LeaseHolder(token="t", beat=7, pid=4321, host="elsewhere", boot="b"), **changes)


def found(row: LeaseRow) -> LeaseHolder:
    known = LeaseHolder.parse(row.read())
    assert known is not None
    return known


def test_a_living_driver_of_another_machine_is_reported(row: NewRow) -> None:
    other = row()
    assert other.compare_and_set(None, holder())
    ended = threading.Event()

    def beat() -> None:
        count = 0
        while not ended.wait(0.2):
            count += 1
            other.renew("t", holder(beat=count))

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with (
            pytest.raises(SearchError, match=r"already running in process 4321 on host 'elsewhere'"),
            Lease(row(), "photos", **QUICK).acquired(),
        ):
            pass
    finally:
        ended.set()
        beating.join()


def test_the_lease_of_another_machine_is_taken_over_after_it_has_expired(row: NewRow) -> None:
    row().compare_and_set(None, holder())
    began = time.monotonic()
    with Lease(row(), "photos", **QUICK).acquired():
        assert time.monotonic() - began >= QUICK["expiry_seconds"]
        assert found(row()).pid == os.getpid()
    assert LeaseHolder.parse(row().read()) is None


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_over_at_once(row: NewRow) -> None:
    import socket

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    row().compare_and_set(None, holder(pid=ended.pid, host=socket.gethostname(), boot=boot_id()))
    began = time.monotonic()
    with Lease(row(), "photos", heartbeat_seconds=0.2, expiry_seconds=60).acquired():
        assert time.monotonic() - began < 30


@pytest.mark.parametrize("before", ["nobody", "a dead driver", "a driver that gave up"])
def test_one_of_several_drivers_that_start_at_the_same_moment_gets_the_lease(
    row: NewRow, before: str
) -> None:
    if before != "nobody":
        row().compare_and_set(None, holder())
    if before == "a driver that gave up":
        row().renew("t", None)
    rows = [row() for _ in range(4)]
    ready, done = threading.Barrier(len(rows)), threading.Barrier(len(rows))
    outcomes: list[str] = []

    def drive(one: LeaseRow) -> None:
        lease = Lease(one, "photos", heartbeat_seconds=0.5, expiry_seconds=2)
        ready.wait()
        try:
            with lease.acquired():
                outcomes.append("drives")
                done.wait(60)
        except SearchError as error:
            outcomes.append("refused" if "process" in str(error) else str(error))
            done.wait(60)

    threads = [threading.Thread(target=drive, args=(one,)) for one in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["drives", *["refused"] * 3]


def test_the_row_changes_while_the_lease_is_held(row: NewRow) -> None:
    reader = row()
    with Lease(row(), "photos", **QUICK).acquired() as lease:
        first = found(reader).beat
        end = time.monotonic() + 20
        while found(reader).beat == first and time.monotonic() < end:
            time.sleep(0.05)
        assert found(reader).beat > first
        lease.check()
        assert not lease.lost.is_set()


def test_a_driver_that_lost_its_lease_writes_nothing_more_and_leaves_the_row_alone(
    url: str, row: NewRow, open_ledger: OpenLedger
) -> None:
    with Lease(row(), "photos", heartbeat_seconds=60, expiry_seconds=60).acquired() as lease:
        ledger = open_ledger(url, "photos", fence=lease.fence)
        number = ledger.start(lambda trial: {"x": trial.suggest_float("x", 0, 1)}).number
        ledger.set_attribute("elapsed", 1.0)
        row().renew(lease.token, holder())  # as if another driver had taken over while this one was suspended
        writes: list[Callable[[], object]] = [
            lambda: ledger.report(number, EpochMetrics(1, 0.5, 1.0, 1.0, 0.1)),
            lambda: ledger.set_attribute("elapsed", 2.0),
            lambda: ledger.finish(number, "complete"),
            lambda: ledger.start(lambda trial: {"x": trial.suggest_float("x", 0, 1)}),
            lease.check,
        ]
        for write in writes:
            with pytest.raises(LeaseLost, match="taken over by process 4321 on host 'elsewhere'"):
                write()
        assert lease.lost.is_set()
    assert found(row()) == holder()
    after = open_ledger(url, "photos")
    assert [(t.state, len(t.epochs)) for t in after.trials] == [("running", 0)]
    assert after.attribute("elapsed") == 1.0


def test_a_driver_that_was_suspended_finds_that_it_has_lost_its_lease(row: NewRow) -> None:
    with Lease(row(), "photos", heartbeat_seconds=0.5, expiry_seconds=60).acquired() as lease:
        lease.check()
        row().renew(lease.token, holder())
        end = time.monotonic() + 20
        while not lease.lost.is_set() and time.monotonic() < end:
            time.sleep(0.05)
        with pytest.raises(LeaseLost):
            lease.check()


def test_a_holder_of_another_version_is_respected() -> None:
    text = json.dumps({"token": "t", "pid": 4321, "host": "elsewhere", "region": "north"})
    assert LeaseHolder.parse(text) == LeaseHolder(token="t", pid=4321, host="elsewhere")
    assert LeaseHolder.parse("null") is None
    assert LeaseHolder.parse(None) is None


def test_the_row_is_one_of_the_study_s_attributes(url: str, row: NewRow, open_ledger: OpenLedger) -> None:
    row().compare_and_set(None, holder())
    assert open_ledger(url, "photos").attribute(StudyKey.DRIVER) == json.loads(holder().to_json())


def test_a_database_that_can_not_be_opened_is_reported(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="expected a database that can be opened"):
        LeaseRow(sqlite_url(tmp_path / "nowhere" / "x.db"), "photos")
