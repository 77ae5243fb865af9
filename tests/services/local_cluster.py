"""Start a Ray cluster of several raylets on this machine, and run searches on it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from search.ledger.reader import read_record
from search.records.record import SearchRecord
from trainables.errors import LedgerError

SYSTEM = {
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
    "prestart_worker_first_driver": False,
    "agent_register_timeout_ms": 300_000,
    "worker_register_timeout_seconds": 300,
}
"""A dead raylet is detected after about 2 s instead of 15. Start-up limits are long for slow machines. No worker
process starts before it is needed."""
HEAD = {
    "num_cpus": 0,
    "include_dashboard": False,
    "include_log_monitor": False,
    "no_monitor": True,
    "_system_config": SYSTEM,
}


@dataclass
class LocalCluster:
    """A head without CPUs, and workers that tests add and kill."""

    cluster: Any
    workers: list[Any] = field(default_factory=list)
    orphans: list[psutil.Process] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, cpus: int = 1, gpus: int = 0) -> Any:
        """Start another worker node."""
        self.workers.append(start_with_retries(lambda: self.cluster.add_node(num_cpus=cpus, num_gpus=gpus)))
        return self.workers[-1]

    def kill(self, node: Any, *names: str) -> None:
        """Kill the named processes of a node with SIGKILL; without names all of them, as a power failure does."""
        self.orphans += self.processes(node)
        for name in names or ("raylet",):
            os.kill(node.all_processes[name][0].process.pid, signal.SIGKILL)
        if not names:
            self.sweep()

    def sweep(self) -> None:
        """Kill the processes that dead raylets have started."""
        for process in self.orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def processes(self, node: Any) -> list[psutil.Process]:
        """The processes that a node's raylet has started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True)
        return []

    @contextlib.contextmanager
    def paused(self, node: Any) -> Iterator[None]:
        """Suspend all processes that a node's raylet has started."""
        stopped = self.processes(node)
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def runs(self, node: Any, name: str) -> bool:
        """Whether an actor of the named class is running on a node."""
        for process in self.processes(node):
            with contextlib.suppress(psutil.Error):
                if name in " ".join(process.cmdline()):
                    return True
        return False


def start_with_retries(start: Callable[[], Any]) -> Any:
    """Start a node, and retry twice if it exceeds Ray's limit of 30 s, as it may on a busy machine."""
    for attempt in range(3):
        before = set(psutil.Process().children(recursive=True))
        try:
            return start()
        except Exception as error:
            if attempt == 2 or "timed out" not in str(error):
                raise
            for process in set(psutil.Process().children(recursive=True)) - before:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
    raise AssertionError


@contextlib.contextmanager
def local_cluster(**head: Any) -> Iterator[LocalCluster]:
    """Start a cluster and shut it down at the end.

    Its files are in a separate folder, so that no other Ray on this machine finds it.
    """
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(
        prefix="r", dir="/tmp"
    )  # short, because the path of a socket may have at most 107 bytes
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = folder
    cluster = Cluster()
    made = LocalCluster(cluster)
    try:
        start_with_retries(lambda: cluster.add_node(**{**HEAD, **head}))
        yield made
    finally:
        made.sweep()
        cluster.shutdown()
        if before is None:
            del os.environ["RAY_TMPDIR"]
        else:
            os.environ["RAY_TMPDIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class ClusterSearch:
    """``unfreeze search`` in a separate process. The same command may be started repeatedly."""

    folder: Path
    storage: Path
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    starts: int = 0

    def start(self, address: str) -> None:
        """Start the command on the cluster at ``address``."""
        self.starts += 1
        line = [str(Path(sys.executable).parent / "unfreeze"), "search", "--storage", str(self.storage)]
        line += [
            "--address",
            address,
            "--baseline-trials",
            "0",
            "--confirm-seeds",
            "1",
            "--probe",
            "off",
            "--finalists",
            "1",
            "--no-refit",
            *self.arguments,
        ]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                line,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                text=True,
            )

    @property
    def _log(self) -> Path:
        return self.folder / f"log-{self.starts}.txt"

    def log(self) -> str:
        """The output of the last start."""
        return self._log.read_text()

    def record(self) -> SearchRecord | None:
        """The search's record from its ledger, or None if it has not begun."""
        try:
            return read_record("digits", str(self.storage))
        except LedgerError:
            return None

    def epochs(self, number: int) -> int:
        """Number of epochs of a trial in the ledger."""
        record = self.record()
        found = [t for t in record.trials if t.number == number] if record else []
        return len(found[0].epochs) if found else 0

    def until(self, true: Callable[[], bool], seconds: float = 600) -> None:
        """Wait until ``true`` returns true. Raises AssertionError if the search ends before."""
        end = time.monotonic() + seconds
        while not true():
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.1)

    def end(self, seconds: float = 900) -> int:
        """Wait for the process and return its exit code."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            raise AssertionError(self.log()) from None

    def stop(self) -> None:
        """Kill the process if it is running."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)
