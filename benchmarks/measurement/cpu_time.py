"""Measure processor seconds by process: what a contender costs, even on a busy machine."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

INTERVAL = 1.0
"""Seconds between two samples. Work of a process after its last sample is not counted."""

RAY = ("gcs_server", "raylet", "ray/dashboard", "ray/_private", "ray::DashboardAgent", "ray::RuntimeEnvAgent")


def run(
    arguments: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path
) -> tuple[int, dict[str, float]]:
    """Run a command in ``folder`` to its end and return its exit code and its processor seconds by kind of process.

    The output goes to ``log``. Kinds are ``driver`` for the command itself, ``ray`` for Ray's services, and the names
    that Ray gives to its actors and tasks.
    """
    seen: dict[tuple[int, float], tuple[str, float]] = {}
    with log.open("w") as output:
        process = subprocess.Popen(
            list(arguments), stdout=output, stderr=output, env=dict(environment), cwd=folder
        )
        root = psutil.Process(process.pid)
        while True:
            _look(root, seen)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(INTERVAL)
                break
    kinds: dict[str, float] = {}
    for kind, seconds in seen.values():
        kinds[kind] = kinds.get(kind, 0.0) + seconds
    return process.returncode, kinds


def _look(root: psutil.Process, seen: dict[tuple[int, float], tuple[str, float]]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                times = process.cpu_times()
                key = process.pid, process.create_time()
                kind = "driver" if process.pid == root.pid else _kind(" ".join(process.cmdline()))
                before = seen.get(key, ("ray::IDLE", 0.0))[0]
                idle = kind.startswith("ray::IDLE") and not before.startswith("ray::IDLE")
                seen[key] = before if idle else kind, times.user + times.system


def _kind(command: str) -> str:
    if any(name in command for name in RAY):
        return "ray"
    if command.startswith("ray::"):
        return command.split(".")[0].split(":")[2].strip() if "." in command else command[5:].strip()
    return "other"
