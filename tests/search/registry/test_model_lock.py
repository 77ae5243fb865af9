"""The lock works over tags in this process's memory; ``test_promotion.py`` tests it over MLflow's tags."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from search.ledger.driver_lease import boot_id
from search.registry.model_lock import BakeryLock
from trainables.errors import TrackingError


class Tags:
    """Tags of a model; each read and write takes a moment, as on a server."""

    def __init__(self) -> None:
        self._kept: dict[str, str] = {"unrelated": "x"}
        self._lock = threading.Lock()

    def read(self) -> dict[str, str]:
        time.sleep(0.001)
        with self._lock:
            return dict(self._kept)

    def write(self, key: str, value: str) -> None:
        time.sleep(0.001)
        with self._lock:
            self._kept[key] = value

    def erase(self, key: str) -> None:
        with self._lock:
            self._kept.pop(key, None)


def mark(number: int, pid: int, host: str | None = None) -> str:
    host = socket.gethostname() if host is None else host
    return json.dumps({"number": number, "by": "eve", "pid": pid, "host": host, "boot": boot_id()})


def test_only_one_process_holds_the_lock_at_a_time() -> None:
    tags, inside, most = Tags(), [0], [0]

    def work() -> None:
        for _ in range(3):
            with BakeryLock(tags, "m").hold():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.005)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert tags.read() == {"unrelated": "x"}


def test_the_ticket_of_a_process_that_died_on_this_machine_is_deleted_at_once() -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    tags = Tags()
    tags.write("unfreeze.turn.dead", mark(1, dead.pid))
    with BakeryLock(tags, "m", stale_seconds=1000).hold():
        assert "unfreeze.turn.dead" not in tags.read()


@pytest.mark.parametrize("number", [0, 7])
def test_an_unchanged_ticket_of_another_machine_is_deleted_after_a_while(number: int) -> None:
    tags = Tags()
    tags.write("unfreeze.turn.far", mark(number, os.getpid(), "another-machine"))
    began = time.monotonic()
    with BakeryLock(tags, "m", stale_seconds=0.5).hold():
        assert time.monotonic() - began >= 0.5
        assert "unfreeze.turn.far" not in tags.read()


def test_an_unreadable_ticket_does_not_block_the_lock_forever() -> None:
    tags = Tags()
    tags.write("unfreeze.turn.odd", "[not json")
    with BakeryLock(tags, "m", stale_seconds=0.1).hold():
        pass


def test_a_process_that_lost_its_ticket_is_stopped_before_it_changes_anything() -> None:
    tags = Tags()
    turn = BakeryLock(tags, "m")
    with turn.hold():
        turn.verify_held()
        tags.erase(f"unfreeze.turn.{turn.token}")
        with pytest.raises(TrackingError, match="it lost its lock"):
            turn.verify_held()


def test_an_error_inside_releases_the_lock() -> None:
    tags = Tags()
    with pytest.raises(RuntimeError), BakeryLock(tags, "m").hold():
        raise RuntimeError
    assert tags.read() == {"unrelated": "x"}
