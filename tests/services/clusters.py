"""Real Ray clusters of several raylets on this machine, and searches that join them."""

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
"""A dead raylet is found out after about 2 s instead of 15; a machine of tests may be slow; nothing starts unasked."""
HEAD = {
    "num_cpus": 0,
    "include_dashboard": False,
    "include_log_monitor": False,
    "no_monitor": True,
    "_system_config": SYSTEM,
}


@dataclass
class Machines:
    """A head without CPUs, and workers that are added and killed."""

    cluster: Any
    workers: list[Any] = field(default_factory=list)
    orphans: list[psutil.Process] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, cpus: int = 1, gpus: int = 0) -> Any:
        """One more node."""
        self.workers.append(patiently(lambda: self.cluster.add_node(num_cpus=cpus, num_gpus=gpus)))
        return self.workers[-1]

    def kill(self, node: Any, *names: str) -> None:
        """``kill -9`` some of a node's processes; all of it if none are named, as when its power is cut."""
        self.orphans += self.processes(node)
        for name in names or ("raylet",):
            os.kill(node.all_processes[name][0].process.pid, signal.SIGKILL)
        if not names:
            self.sweep()

    def sweep(self) -> None:
        """End what dead raylets have left behind."""
        for process in self.orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def processes(self, node: Any) -> list[psutil.Process]:
        """What a node's raylet has started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True)
        return []

    @contextlib.contextmanager
    def paused(self, node: Any) -> Iterator[None]:
        """Nothing that a node's raylet has started goes on meanwhile."""
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
        """Whether an actor of such a class lives on a node."""
        for process in self.processes(node):
            with contextlib.suppress(psutil.Error):
                if name in " ".join(process.cmdline()):
                    return True
        return False


def patiently(start: Callable[[], Any]) -> Any:
    """Start a node; once more if that takes more than the 30 s that Ray has for it: machines of tests may be busy."""
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
def machines(**head: Any) -> Iterator[Machines]:
    """A cluster for a while. Its files have a folder of their own, so that no other Ray on this machine finds it."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # a socket's path may have 107 bytes
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = folder
    cluster = Cluster()
    made = Machines(cluster)
    try:
        patiently(lambda: cluster.add_node(**{**HEAD, **head}))
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
class Search:
    """``unfreeze search`` as a process of its own; the same command may be started again."""

    folder: Path
    storage: Path
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    starts: int = 0

    def start(self, address: str) -> None:
        """Start it on a cluster."""
        self.starts += 1
        line = [str(Path(sys.executable).parent / "unfreeze"), "search", "--storage", str(self.storage)]
        line += ["--address", address, "--baseline-trials", "0", "--confirm-seeds", "1", *self.arguments]
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
        """What the newest start has printed."""
        return self._log.read_text()

    def record(self) -> SearchRecord | None:
        """The search as the ledger has it; None before it has begun."""
        try:
            return read_record("digits", str(self.storage))
        except LedgerError:
            return None

    def epochs(self, number: int) -> int:
        """How many epochs of a trial are in the ledger."""
        record = self.record()
        found = [t for t in record.trials if t.number == number] if record else []
        return len(found[0].epochs) if found else 0

    def until(self, true: Callable[[], bool], seconds: float = 600) -> None:
        """Wait; the search must not end meanwhile."""
        end = time.monotonic() + seconds
        while not true():
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.1)

    def end(self, seconds: float = 900) -> int:
        """Wait for the process; its exit code."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            raise AssertionError(self.log()) from None

    def stop(self) -> None:
        """Leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)
