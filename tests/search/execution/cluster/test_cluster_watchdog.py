"""What the driver does when its cluster no longer answers."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from search.execution.cluster import cluster_watchdog
from search.execution.cluster.cluster_watchdog import ClusterWatchdog

PROGRAM = """
import socket, sys, time
from search.execution.cluster import cluster_watchdog
cluster_watchdog.CHECK_SECONDS = 0.05
door = socket.create_server(("127.0.0.1", 0))
closed = lambda: print("view closed", flush=True)
looking = cluster_watchdog.ClusterWatchdog({"the head": door.getsockname()}, closed, 0.2, 0.2)
with looking.watching():
    print("began", flush=True)
    door.close()
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_watchdog, "CHECK_SECONDS", 0.05)


def test_whoever_hangs_in_a_call_is_ended_with_words() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50)
    assert ended.returncode == 1
    assert ended.stdout == "began\nview closed\n"
    assert ended.stderr.startswith("unfreeze: address: the head at 127.0.0.1:")
    assert "the same command goes on" in ended.stderr


def test_whoever_notices_goes_on_living() -> None:
    door = socket.create_server(("127.0.0.1", 0))
    looking = ClusterWatchdog({"the head": door.getsockname()}, lost_after_seconds=0.2, grace_seconds=0.3)
    with looking.watching():
        time.sleep(0.5)
        assert looking.lost is None
        door.close()
        end = time.monotonic() + 30
        while looking.lost is None and time.monotonic() < end:
            time.sleep(0.01)
    assert "the head" in str(looking.lost)
    time.sleep(0.5)  # longer than the grace
