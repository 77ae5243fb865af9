"""What the driver does when its cluster no longer answers."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from search.execution.engines import cluster_watchdog as watch
from search.execution.engines.cluster_watchdog import ClusterWatchdog

PROGRAM = """
import socket, sys, time
from search.execution.engines import cluster_watchdog as watch
watch.KNOCK_SECONDS = 0.05
door = socket.create_server(("127.0.0.1", 0))
looking = watch.Watch({"the head": door.getsockname()}, lambda: print("view closed", flush=True), 0.2, 0.2)
with looking.watching():
    print("began", flush=True)
    door.close()
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "CHECK_SECONDS", 0.05)


def test_whoever_hangs_in_a_call_is_ended_with_words() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50)
    assert ended.returncode == 1
    assert ended.stdout == "began\nview closed\n"
    assert ended.stderr.startswith("unfreeze: address: the head at 127.0.0.1:")
    assert "the same command goes on" in ended.stderr


def test_whoever_notices_goes_on_living() -> None:
    door = socket.create_server(("127.0.0.1", 0))
    looking = ClusterWatchdog({"the head": door.getsockname()}, gone_seconds=0.2, grace_seconds=0.3)
    with looking.watching():
        time.sleep(0.5)
        assert looking.lost is None
        door.close()
        end = time.monotonic() + 30
        while looking.lost is None and time.monotonic() < end:
            time.sleep(0.01)
    assert "the head" in str(looking.lost)
    time.sleep(0.5)  # longer than the grace
