"""Start Ray nodes on this machine that differ in their environment and in what is mounted."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

Findings = list[dict[str, str]]
Doctor = Callable[..., Findings]
LIMIT = 60 if os.getloadavg()[0] < 3 * (os.cpu_count() or 1) else 240
"""Seconds within which the doctor must name a fault: 60, or 240 if this machine is busy."""

ATTEMPTS = 5
"""How often to start a node. Ray allows it 30 s, which is too little on a busy machine."""

SECONDS = 240
"""Seconds to wait for a node to start, on a busy machine."""

_HEAD = """
import json, os, sys, time
from ray.cluster_utils import Cluster
options = json.loads(sys.argv[1])
cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **options})
with open(sys.argv[2] + ".new", "w") as file:
    file.write(cluster.address)
os.replace(sys.argv[2] + ".new", sys.argv[2])
sys.stdin.read()  # blocks until the test closes the pipe or dies
cluster.shutdown()
"""

_COUNT = """
import ray, sys, time
ray.init(sys.argv[1], logging_level="ERROR", log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]):
    time.sleep(0.3)
"""


@cache
def can_mount() -> bool:
    """Whether this process may create mount namespaces."""
    if shutil.which("unshare") is None:
        return False
    asked = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


@dataclass
class Raylets:
    """A head and worker nodes, each in a separate process, until :meth:`close`."""

    folder: Path
    token: str = "right"
    address: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a driver that may join the cluster."""
        known = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "CUDA_VISIBLE_DEVICES")}
        return {**known, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def start(self, cpus: int = 1) -> None:
        """Start the head."""
        told = self.folder / "address"
        # A separate folder: other Ray drivers on this machine look in /tmp/ray and would join this cluster.
        known = {"node_name": "head", "num_cpus": cpus, "temp_dir": str(self.folder / "ray")}
        command = [sys.executable, "-c", _HEAD, json.dumps(known), str(told)]
        self._run("head", command, self.environment)
        self._wait_for(lambda: told.exists())
        self.address = told.read_text()

    def add(
        self,
        name: str,
        *,
        cpus: int = 1,
        gpus: int = 0,
        environment: Mapping[str, str] | None = None,
        mounts: Iterable[str] = (),
    ) -> None:
        """Start a worker node. ``mounts`` are arguments of ``mount`` commands in a separate mount namespace."""
        start = (
            "ray start --block --disable-usage-stats --object-store-memory=100000000 "
            f"--address={self.address} --node-name={name} --num-cpus={cpus} --num-gpus={gpus}"
        )
        ray = f"{shlex.quote(sys.executable)} -c 'from ray.scripts.scripts import main; main()'"
        line = " && ".join([*(f"mount {m}" for m in mounts), "exec " + start.replace("ray", ray, 1)])
        command = ["sh", "-c", line]
        if mounts:
            command = ["unshare", "--mount", "--propagation", "private", *command]
        for attempt in range(ATTEMPTS):
            self._run(name, command, {**self.environment, **(environment or {})})
            try:
                return self._wait()
            except TimeoutError:
                if attempt == ATTEMPTS - 1 or "timed out during startup" not in self._log(name):
                    raise
                self.processes.pop().wait()
        return None

    def _wait(self) -> None:
        """Wait until all nodes are alive."""
        command = [sys.executable, "-c", _COUNT, self.address, str(len(self.processes))]
        asking = subprocess.Popen(command, env=self.environment, stderr=subprocess.DEVNULL)
        try:
            self._wait_for(lambda: asking.poll() is not None)
        finally:
            asking.kill()
            asking.wait()

    def close(self) -> None:
        """Stop all nodes."""
        for process in reversed(self.processes):
            if process.stdin is not None:
                process.stdin.close()
            if process is not self.processes[0]:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _run(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    cwd=self.folder,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def _log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()[-500:]

    def _wait_for(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + SECONDS
        while not done():
            ended = [p for p in self.processes if p.poll() is not None]
            if ended or time.monotonic() > end:
                logs = "\n".join(f"{f.stem}: {self._log(f.stem)}" for f in self.folder.glob("*.log"))
                raise TimeoutError(logs)
            time.sleep(0.3)


def free_port() -> int:
    """An unused port of the loopback interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def short_folder() -> Path:
    """A temporary folder with a short path, because the paths of Ray's sockets are limited."""
    return Path(tempfile.mkdtemp(prefix="raylets-"))
