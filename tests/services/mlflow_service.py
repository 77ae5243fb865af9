"""Start an MLflow server for tests, and a proxy in front of it that delays requests or answers with errors."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from search.tracking.stores import default_tracking_uri


def free_port() -> int:
    """An unused port of the loopback interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """An MLflow server that tests can kill and restart on the same port and store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        store = ["--backend-store-uri", default_tracking_uri(self.folder)]
        artifacts = ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            command = [sys.executable, "-m", "mlflow", "server", *options, *store, *artifacts]
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(f"{self.uri}/health", self.folder / "server.log")

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def wait_for(address: str, log: Path) -> None:
    """Wait until the server at ``address`` answers. Raises TimeoutError with the end of ``log``."""
    for _ in range(240):
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise TimeoutError(log.read_text()[-2000:])


class Proxy:
    """Forward requests to a server.

    Attributes:
        delay: seconds to wait before each request.
        failing: answer 500 without forwarding the request.
        lossy: forward the request and answer 500, so that the client believes that a successful request has failed.
        seen: number of requests.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.delay = 0.0
        self.failing = self.lossy = False
        self.seen = 0
        self._server: ThreadingHTTPServer | None = None
        self.port = free_port()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start listening, in background threads."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.seen += 1
                time.sleep(proxy.delay)
                if proxy.failing:
                    self.answer(500, [], b'{"error_code": "INTERNAL_ERROR", "message": "out of order"}')
                    return
                status, headers, content = proxy._ask(self.command, self.path, self.headers, body)
                if proxy.lossy:
                    status, headers, content = 500, [], b"lost"
                self.answer(status, headers, content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

            def answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
                with contextlib.suppress(OSError):  # the client has closed the connection
                    self.send_response(status)
                    for name, value in headers:
                        if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                            self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _ask(
        self, method: str, path: str, headers: http.client.HTTPMessage, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=120)
        try:
            passed = {n: v for n, v in headers.items() if n.lower() not in ("host", "connection")}
            connection.request(method, path, body or None, passed)
            reply = connection.getresponse()
            return reply.status, reply.getheaders(), reply.read()
        finally:
            connection.close()
