"""Test that a search ends with a message when its cluster no longer answers."""

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
endpoint = socket.create_server(("127.0.0.1", 0))
closed = lambda: print("view closed", flush=True)
watchdog = cluster_watchdog.ClusterWatchdog({"the head": endpoint.getsockname()}, closed, 0.2, 0.2)
with watchdog.watching():
    print("began", flush=True)
    endpoint.close()
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_watchdog, "CHECK_SECONDS", 0.05)


def test_a_process_that_hangs_in_a_call_is_ended_with_a_message() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50)
    assert ended.returncode == 1
    assert ended.stdout == "began\nview closed\n"
    assert ended.stderr.startswith("unfreeze: address: the head at 127.0.0.1:")
    assert "run the same command again to resume" in ended.stderr


def test_a_search_that_ends_within_the_grace_period_is_not_ended() -> None:
    endpoint = socket.create_server(("127.0.0.1", 0))
    watchdog = ClusterWatchdog(
        {"the head": endpoint.getsockname()}, lost_after_seconds=0.2, grace_seconds=0.3
    )
    with watchdog.watching():
        time.sleep(0.5)
        assert watchdog.lost is None
        endpoint.close()
        end = time.monotonic() + 30
        while watchdog.lost is None and time.monotonic() < end:
            time.sleep(0.01)
    assert "the head" in str(watchdog.lost)
    time.sleep(0.5)  # longer than the grace period
