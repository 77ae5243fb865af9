"""Finds out whether a process was killed for lack of memory, by the kernel or by Ray's memory monitor."""

from __future__ import annotations

import time
from pathlib import Path

from search.execution.cluster.ray_internals import worker_exit

EXIT_RECORD_SECONDS = 5.0
"""Time that Ray may take to record why a process died."""

RETRY_SECONDS = 0.2
"""Pause between two looks at Ray's records."""

_RAY_OOM_PHRASE = "running low on memory"
_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))
"""Files with the kernel's counter: of this container, or else of this machine."""


def is_oom_message(message: str) -> bool:
    """Return whether Ray's memory monitor wrote this message about a process that it killed."""
    return _RAY_OOM_PHRASE in message


def ray_oom_message(node: str, pid: int) -> str:
    """Return what Ray's memory monitor wrote when it killed a worker process; empty if it did not kill it.

    The error that a caller gets does not contain the reason if Ray restarts the actor. Only Ray's table of workers has
    it, a moment later.
    """
    end = time.monotonic() + EXIT_RECORD_SECONDS
    while (found := worker_exit(node, pid)) is None and time.monotonic() < end:
        time.sleep(RETRY_SECONDS)
    return found.detail if found is not None and found.out_of_memory else ""


def kernel_oom_kills() -> int:
    """Return how many processes the kernel has killed for lack of memory, in this container or on this machine.

    Compare it with an earlier value. It is 0 where the kernel does not count.
    """
    # The container's own counter comes first: that of the machine counts the kills in other containers, too.
    for file in _COUNTERS:
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.strip().isdigit():
                return int(count)
    return 0
