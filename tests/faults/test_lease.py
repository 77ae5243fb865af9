from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.lease import KEY, Lease, boot_id
from search.ledger import Ledger, sqlite_url
from trainables.errors import SearchError

Notes = Callable[[], Ledger]
OpenLedger = Callable[..., Ledger]

QUICK: dict[str, Any] = {"beat_seconds": 0.2, "patience": 1.5}


@pytest.fixture
def notes(tmp_path: Path, open_ledger: OpenLedger) -> Notes:
    """Opens the ledger that all drivers share, once more with each call."""
    return lambda: open_ledger(sqlite_url(tmp_path / "shared.db"), "photos")


def holder(**changes: object) -> dict[str, object]:
    return {"token": "t", "beat": 7, "pid": 4321, "host": "elsewhere", "boot": "b", **changes}


def test_a_living_driver_of_another_machine_is_named(notes: Notes) -> None:
    ledger = notes()
    ended = threading.Event()

    def beat() -> None:
        count = 0
        while not ended.wait(0.2):
            count += 1
            ledger.note(KEY, holder(beat=count))

    ledger.note(KEY, holder())
    other = threading.Thread(target=beat)
    other.start()
    try:
        with (
            pytest.raises(SearchError, match=r"already running in process 4321 on host 'elsewhere'"),
            Lease(notes(), "photos", **QUICK).held(),
        ):
            pass
    finally:
        ended.set()
        other.join()


def test_a_silent_driver_of_another_machine_is_waited_for_and_taken_over_from(notes: Notes) -> None:
    ledger = notes()
    ledger.note(KEY, holder())
    began = time.monotonic()
    with Lease(ledger, "photos", **QUICK).held():
        assert time.monotonic() - began >= QUICK["patience"]
        assert ledger.noted(KEY)["pid"] == os.getpid()
    assert ledger.noted(KEY) is None


def test_a_dead_process_of_this_machine_is_taken_over_from_at_once(notes: Notes) -> None:
    import socket

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    ledger = notes()
    ledger.note(KEY, holder(pid=ended.pid, host=socket.gethostname(), boot=boot_id()))
    began = time.monotonic()
    with Lease(ledger, "photos", beat_seconds=0.2, patience=60).held():
        assert time.monotonic() - began < 30


def test_of_two_that_begin_at_the_same_moment_one_drives(notes: Notes) -> None:
    ledgers = [notes(), notes()]
    ready, done = threading.Barrier(2), threading.Barrier(2)
    outcomes: list[str] = []

    def drive(ledger: Ledger) -> None:
        lease = Lease(ledger, "photos", beat_seconds=0.5, patience=3)
        ready.wait()
        try:
            with lease.held():
                outcomes.append("drives")
                done.wait(30)
        except SearchError as error:
            outcomes.append("refused" if "process" in str(error) else str(error))
            done.wait(30)

    threads = [threading.Thread(target=drive, args=(ledger,)) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["drives", "refused"]


def test_the_mark_changes_while_the_lease_is_held(notes: Notes) -> None:
    ledger = notes()
    with Lease(ledger, "photos", **QUICK).held():
        first = ledger.noted(KEY)["beat"]
        end = time.monotonic() + 20
        while ledger.noted(KEY)["beat"] == first and time.monotonic() < end:
            time.sleep(0.05)
        assert ledger.noted(KEY)["beat"] > first
