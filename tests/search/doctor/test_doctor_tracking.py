"""Tracking servers that are unreachable, refuse the host or ask for a login, and other servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from raylets import Doctor, free_port

from search.config.search_config import SearchConfig
from search.doctor.startup_checks import StartupChecks
from search.doctor.tracking import ask_server


class Strict(BaseHTTPRequestHandler):
    """Answers by its port's rules: the status that the path's first part names, or 401 without the right login."""

    status, body, seen = 200, b"{}", ""

    def do_GET(self) -> None:
        type(self).seen = self.headers.get("Authorization", "")
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def strict() -> Iterator[tuple[type[Strict], str]]:
    handler = type("Handler", (Strict,), {})
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def choosy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server that answers to the name mlflow.example alone."""
    folder, port = tmp_path_factory.mktemp("choosy"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--allowed-hosts", "mlflow.example"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = (folder / "log").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(400):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


@pytest.mark.slow
def test_a_server_that_refuses_the_host_name_is_reported(choosy: str) -> None:
    found = ask_server(choosy)
    assert found.grade == "failed"
    assert f"answers 403: it refuses requests to the name '{choosy.removeprefix('http://')}'" in found.words
    assert "--allowed-hosts" in found.words
    assert urllib.request.urlopen(f"{choosy}/health").status == 200  # which is why nobody should ask for that


@pytest.mark.slow
def test_a_search_reports_a_server_that_refuses_it_while_it_starts(choosy: str, tmp_path: Path) -> None:
    messages: list[str] = []
    config = SearchConfig(tracking_uri=choosy, storage=str(tmp_path))
    checks = StartupChecks(config, tmp_path, messages.append)
    began = time.thread_time()
    thread = checks.start_local_checks()
    assert time.thread_time() - began < 0.3
    thread.join(30)
    checks.raise_if_fatal()
    (message,) = messages
    assert message.startswith("tracking: ")
    assert "403" in message
    assert "The search goes on" in message


def test_an_unreachable_server_is_reported(doctor: Doctor, tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    nowhere = f"127.0.0.1:{free_port()}"
    findings = doctor("--tracking-uri", uri, "--storage", str(tmp_path), "--address", nowhere)
    (said,) = [f for f in findings if f["check"] == "tracking"]
    assert said["grade"] == "failed"
    assert f"{uri} does not answer" in said["words"]
    assert "Connection refused" in said["words"]


def test_an_unknown_host_name_is_reported() -> None:
    assert "no-such-host.invalid:5000 does not answer" in ask_server("http://no-such-host.invalid:5000").words


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "answers 401: it asks for a login: set MLFLOW_TRACKING_USERNAME"),
        (403, "answers 403: this account may not read experiments"),
        (404, "answers 404: no MLflow server is at this address"),
        (503, "answers 503 Service Unavailable"),
    ],
)
def test_answers_of_a_server_are_explained(strict: tuple[type[Strict], str], status: int, words: str) -> None:
    handler, where = strict
    handler.status = status
    assert words in ask_server(f"http://{where}").words


def test_credentials_are_sent_and_not_shown(
    strict: tuple[type[Strict], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, where = strict
    found = ask_server(f"http://ada:s3cret@{where}")
    assert found.grade == "ok"
    assert handler.seen == "Basic YWRhOnMzY3JldA=="
    assert "s3cret" not in found.words
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    ask_server(f"http://{where}")
    assert handler.seen == "Bearer t0ken"
