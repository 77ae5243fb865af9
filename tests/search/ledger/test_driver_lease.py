"""Who may drive a search on a shared database: living, dead and sleeping drivers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search.ledger.attributes import StudyKey
from search.ledger.driver_lease import Lease, boot_id
from search.ledger.driver_lease_row import LeaseRow, parse_holder
from search.ledger.ledger import Ledger, sqlite_url
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import LeaseLost, LedgerError, SearchError

NewMark = Callable[[], LeaseRow]
OpenLedger = Callable[..., Ledger]

QUICK: dict[str, Any] = {"heartbeat_seconds": 0.2, "expiry_seconds": 1.5}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that several drivers share."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "shared.db")
    return str(request.getfixturevalue("postgresql").new_database())


@pytest.fixture
def mark(url: str) -> Iterator[NewMark]:
    """Opens the mark of the one search, once more with each call."""
    opened: list[LeaseRow] = []

    def new() -> LeaseRow:
        opened.append(LeaseRow(url, "photos"))
        return opened[-1]

    yield new
    for each in opened:
        each.close()


def holder(**changes: object) -> dict[str, object]:
    return {"token": "t", "beat": 7, "pid": 4321, "host": "elsewhere", "boot": "b", **changes}


def test_a_living_driver_of_another_machine_is_named(mark: NewMark) -> None:
    other = mark()
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
            Lease(mark(), "photos", **QUICK).acquired(),
        ):
            pass
    finally:
        ended.set()
        beating.join()


def test_a_silent_driver_of_another_machine_is_waited_for_and_taken_over_from(mark: NewMark) -> None:
    mark().compare_and_set(None, holder())
    began = time.monotonic()
    with Lease(mark(), "photos", **QUICK).acquired():
        assert time.monotonic() - began >= QUICK["expiry_seconds"]
        assert parse_holder(mark().read())["pid"] == os.getpid()
    assert parse_holder(mark().read()) == {}


def test_a_dead_process_of_this_machine_is_taken_over_from_at_once(mark: NewMark) -> None:
    import socket

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mark().compare_and_set(None, holder(pid=ended.pid, host=socket.gethostname(), boot=boot_id()))
    began = time.monotonic()
    with Lease(mark(), "photos", heartbeat_seconds=0.2, expiry_seconds=60).acquired():
        assert time.monotonic() - began < 30


@pytest.mark.parametrize("before", ["nobody", "a dead one", "one that gave up"])
def test_of_several_that_begin_at_the_same_moment_one_drives(mark: NewMark, before: str) -> None:
    if before != "nobody":
        mark().compare_and_set(None, holder())
    if before == "one that gave up":
        mark().renew("t", None)
    marks = [mark() for _ in range(4)]
    ready, done = threading.Barrier(len(marks)), threading.Barrier(len(marks))
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

    threads = [threading.Thread(target=drive, args=(one,)) for one in marks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["drives", *["refused"] * 3]


def test_the_mark_changes_while_the_lease_is_held(mark: NewMark) -> None:
    reader = mark()
    with Lease(mark(), "photos", **QUICK).acquired() as lease:
        first = parse_holder(reader.read())["beat"]
        end = time.monotonic() + 20
        while parse_holder(reader.read())["beat"] == first and time.monotonic() < end:
            time.sleep(0.05)
        assert parse_holder(reader.read())["beat"] > first
        lease.check()
        assert not lease.lost.is_set()


def test_a_driver_that_was_taken_over_from_writes_nothing_more_and_leaves_the_mark_alone(
    url: str, mark: NewMark, open_ledger: OpenLedger
) -> None:
    with Lease(mark(), "photos", heartbeat_seconds=60, expiry_seconds=60).acquired() as lease:
        ledger = open_ledger(url, "photos", fence=lease.fence)
        number = ledger.start(lambda trial: {"x": trial.suggest_float("x", 0, 1)}).number
        ledger.set_attribute("elapsed", 1.0)
        mark().renew(lease.token, holder())  # in a sleep of 60 s, as it were
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
    assert parse_holder(mark().read()) == holder()
    after = open_ledger(url, "photos")
    assert [(t.state, len(t.epochs)) for t in after.trials] == [("running", 0)]
    assert after.attribute("elapsed") == 1.0


def test_a_driver_that_has_slept_asks_before_it_tells_anything(mark: NewMark) -> None:
    with Lease(mark(), "photos", heartbeat_seconds=0.5, expiry_seconds=60).acquired() as lease:
        lease.check()
        mark().renew(lease.token, holder())
        end = time.monotonic() + 20
        while not lease.lost.is_set() and time.monotonic() < end:
            time.sleep(0.05)
        with pytest.raises(LeaseLost):
            lease.check()


def test_a_mark_is_one_of_the_study_s_attributes(url: str, mark: NewMark, open_ledger: OpenLedger) -> None:
    mark().compare_and_set(None, holder())
    assert open_ledger(url, "photos").attribute(StudyKey.DRIVER) == json.loads(json.dumps(holder()))


def test_a_database_that_can_not_be_asked_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="expected a database that can be opened"):
        LeaseRow(sqlite_url(tmp_path / "nowhere" / "x.db"), "photos")
