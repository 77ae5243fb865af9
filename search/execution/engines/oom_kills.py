"""Whether a process was killed for lack of memory, and by whom."""

from __future__ import annotations

import time
from pathlib import Path

TABLE_SECONDS = 5.0
"""How long Ray may take to note why a process has died."""

RETRY_SECONDS = 0.2

_RAY_OOM_PHRASE = "running low on memory"
_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


def is_oom_message(words: str) -> bool:
    """Whether this is how Ray tells that its memory monitor has killed something."""
    return _RAY_OOM_PHRASE in words


def ray_oom_message(node: str, pid: int) -> str:
    """What Ray's memory monitor said when it killed a worker process on a node; nothing if it did not.

    For an actor that Ray starts again, the error does not say why it died; only Ray's table of workers does, a moment
    later.
    """
    end = time.monotonic() + TABLE_SECONDS
    while (words := _exit_words(node, pid)) is None and time.monotonic() < end:
        time.sleep(RETRY_SECONDS)
    return words or ""


def _exit_words(node: str, pid: int) -> str | None:
    """The memory monitor's words; nothing if the process ended otherwise; None if it still runs in Ray's eyes."""
    from ray._private.state import state
    from ray.core.generated.common_pb2 import WorkerExitType
    from ray.core.generated.gcs_pb2 import WorkerTableData

    for row in state._connect_and_get_accessor().get_worker_table():
        worker = WorkerTableData.FromString(row)
        if worker.pid == pid and worker.worker_address.node_id.hex() == node and not worker.is_alive:
            killed = worker.exit_type == WorkerExitType.NODE_OUT_OF_MEMORY
            return str(worker.exit_detail) if killed else ""
    return None


def kernel_oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory: in this container, or on this machine.

    A number to compare with an earlier one; 0 where the kernel does not count.
    """
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
