"""Run ``mlflow models serve`` as a process for tests, and stop it together with its children."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from mlflow_service import free_port


class ModelServer:
    """MLflow's scoring server for ``model_uri`` in the store at ``tracking_uri``, on an unused port."""

    def __init__(self, model_uri: str, tracking_uri: str, folder: Path) -> None:
        self.model_uri, self.tracking_uri = model_uri, tracking_uri
        self.port = free_port()
        self.log = folder / f"server-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server. :meth:`wait` waits until it answers."""
        programs = str(Path(sys.executable).parent)
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "PATH": os.pathsep.join([programs, os.environ["PATH"]]),  # MLflow looks for uvicorn on the PATH
            "MLFLOW_TRACKING_URI": self.tracking_uri,
        }
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "models",
            "serve",
            "-m",
            self.model_uri,
            "-p",
            str(self.port),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--env-manager", "local"],
                env=environment,
                cwd=self.log.parent,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, seconds: float = 500) -> None:
        """Wait until the server answers. A busy machine takes minutes to load TensorFlow."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=10).close()
                return
            except OSError:
                time.sleep(0.5)
        raise TimeoutError(self.log.read_text()[-4000:])

    def ask(self, body: Any, kind: str = "application/json") -> tuple[int, Any]:
        """Send ``body``, bytes unchanged and anything else as JSON, and return status and answer."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/invocations", content, {"Content-Type": kind}
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def kill(self) -> None:
        """Kill the server and its child processes."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
