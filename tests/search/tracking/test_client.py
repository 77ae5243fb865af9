"""Errors of MLflow become clear messages, and are classified as transient or permanent."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.tracking.stores import default_tracking_uri
from trainables.errors import TrackingError

pytest.importorskip("mlflow")
from search.tracking.client import connect, is_transient
from search.tracking.mirror import Mirror


class Refusing(http.server.BaseHTTPRequestHandler):
    """A server that answers every request with one status."""

    status = 500

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Quietly."""


@pytest.fixture(autouse=True)
def few_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


@pytest.fixture
def refusing() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "words", "passes"),
    [
        (500, "its server returns errors", True),
        (503, "its server returns errors", True),
        (401, "it requires a login. Set MLFLOW_TRACKING_USERNAME", False),
        (403, "--allowed-hosts", False),
    ],
)
def test_errors_of_a_server_are_translated(
    refusing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, words: str, passes: bool
) -> None:
    monkeypatch.setattr(Refusing, "status", status)
    with pytest.raises(TrackingError, match=f"MLflow at {refusing} .*{words}") as caught:
        Mirror(refusing, experiment="x", storage=tmp_path)
    assert is_transient(caught.value) == passes


def test_an_unreachable_server_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="no server is running there") as caught:
        Mirror("http://127.0.0.1:9", experiment="x", storage=tmp_path)
    assert is_transient(caught.value)


def test_a_damaged_database_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database, " * 200)
    with pytest.raises(TrackingError, match="not a database") as caught:
        connect(default_tracking_uri(tmp_path))
    assert not is_transient(caught.value)


def test_a_normal_run_is_silent(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from search.tracking.mirror import Mirror\n"
        "from search.tracking.stores import default_tracking_uri\n"
        "Mirror(default_tracking_uri(Path(sys.argv[1])), experiment='x', storage=Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.slow
def test_simultaneous_processes_can_create_a_store(tmp_path: Path) -> None:
    words = (
        "import sys; from search.tracking.client import connect; connect(sys.argv[1]).search_experiments()"
    )
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    comers = [
        subprocess.Popen([sys.executable, "-c", words, uri], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for comer in comers:
        assert comer.wait(300) == 0, comer.stderr.read() if comer.stderr else ""


@pytest.mark.slow
def test_a_process_that_dies_while_it_creates_a_store_does_not_block_others(tmp_path: Path) -> None:
    folder = tmp_path / "mlflow.db 100 % ü?"
    uri, made = default_tracking_uri(folder), folder / "mlflow.db"
    command = "import sys; from search.tracking.client import connect; connect(sys.argv[1])"
    maker = subprocess.Popen([sys.executable, "-c", command, uri])
    end = time.monotonic() + 120
    while not any(file.stat().st_size for file in folder.glob(".mlflow.db.making")):
        assert maker.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.01)
    maker.kill()
    maker.wait()
    assert not made.exists() or not made.stat().st_size
    assert [e.name for e in connect(uri).search_experiments()] == ["Default"]
    assert [file.name for file in folder.iterdir()] == ["mlflow.db"]
