"""``unfreeze ui``: open MLflow on the runs and models of a storage."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from search.config.argument_parser import Parser, add_storage_options, add_verbose_option
from search.tracking.stores import artifact_location, default_tracking_uri, sqlite_path
from trainables.errors import TrackingError, UsageError

TRAINING = "?workflowType=machine_learning"
"""Query of a page's address. Without it MLflow opens its pages for language models, which show no training runs. The
list of experiments drops the query at the next click, so the page that is opened first is that of the runs."""


def parser() -> Parser:
    """Return the parser: the store, and the address of the server."""
    made = Parser("ui", "Serve the MLflow UI for the runs and models of a storage until Ctrl-C.")
    add_storage_options(made)
    made.add_argument("--host", default="127.0.0.1", help="Address to listen on (default: 127.0.0.1).")
    made.add_argument("--port", default="5000", help="Port to listen on (default: 5000).")
    add_verbose_option(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Run MLflow's server until Ctrl-C. If the store is a server that runs already, print its address."""
    storage = Path(options.storage)
    uri = options.tracking_uri or default_tracking_uri(storage)
    if uri.startswith(("http://", "https://")):
        print(uri)
        return 0
    command = server_command(uri, storage, options.host, options.port)
    _check_port_free(options.host, int(options.port))
    address = f"http://{options.host}:{options.port}"
    print(f"starting MLflow on {uri} …", file=sys.stderr)
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    output = None if options.verbose else subprocess.DEVNULL
    # In a session of its own, the server does not receive Ctrl-C. This process does, and ends it with all its workers.
    server = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    _restore_signal_handlers()
    try:
        _wait_for(server, address)
        page, others = _pages(uri)
        _restore_signal_handlers()  # again: a native library that MLflow loads replaces the handlers
        print(f"open {address}/{page} in a browser; Ctrl-C ends it", flush=True)
        for words, other in others.items():
            print(f"  {words}: {address}/{other}", flush=True)
        code = server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end(server)
    raise TrackingError(f"the MLflow UI ended with code {code}; --verbose shows why")


def _restore_signal_handlers() -> None:
    """Let Ctrl-C and SIGTERM interrupt this process. A shell ignores Ctrl-C for what a script starts with ``&``."""
    for end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(end, signal.default_int_handler)


def _pages(uri: str) -> tuple[str, dict[str, str]]:
    """Return the page to open first, and other pages by what they show.

    The first page shows the runs of the task that was searched last, or the experiments if there is no search.
    """
    from search.tracking.client import connect, translate_errors
    from search.tracking.experiment_views import TRIALS_VIEW, VIEW_TAG_PREFIX
    from search.tracking.experiments import is_search_experiment

    with translate_errors(uri):
        found = connect(uri).search_experiments(order_by=["last_update_time DESC"])
    searched = [experiment for experiment in found if is_search_experiment(experiment.name)]
    if not searched:
        return f"#/experiments{TRAINING}", {}
    newest = searched[0]
    runs = f"#/experiments/{newest.experiment_id}/runs{TRAINING}"
    trials = (
        f"{runs}&viewStateShareKey={TRIALS_VIEW}" if VIEW_TAG_PREFIX + TRIALS_VIEW in newest.tags else runs
    )
    return trials, {
        "learning curves and parallel coordinates": f"{trials}&compareRunsMode=CHART",
        "all searches": f"#/experiments{TRAINING}",
        "models": f"#/models{TRAINING}",
    }


def _check_port_free(host: str, port: int) -> None:
    """Raise UsageError if another program listens there: its pages would be taken for those of our server."""
    try:
        # Another program may still take the port before the server does. The server then ends, and _wait_for
        # reports it.
        with socket.create_server((host, port)):
            return
    except OSError as error:
        raise UsageError(
            f"--host, --port: can't listen on {host}:{port}: {error.strerror}; try --port N"
        ) from error


def _wait_for(server: subprocess.Popen[bytes], address: str) -> None:
    """Wait until the server answers, or raise TrackingError if it ends before."""
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=2).close()
        except OSError:
            time.sleep(0.3)
        else:
            return
    raise TrackingError(f"the MLflow UI did not start at {address}: is the port in use? --verbose shows why")


def _end(server: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)


def server_command(uri: str, storage: Path, host: str, port: str) -> list[str]:
    """Return the command line of MLflow's server for a store."""
    if not (port.isdecimal() and 0 < int(port) < 65_536):
        raise UsageError(f"--port: expected a number from 1 to 65535, received {port!r}")
    database = sqlite_path(uri)
    if database is not None and not database.exists():
        raise UsageError(
            f"--storage: expected a folder with the runs of a search, received {str(storage)!r}, "
            f"which has no {database.name}; name another folder, or a server with --tracking-uri URI"
        )
    artifacts = artifact_location(uri, storage)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        uri,
        "--host",
        host,
        "--port",
        port,
        "--workers",  # one suffices for one user; each takes seconds to start and a quarter of a gigabyte
        "1",
    ]
    return command if artifacts is None else [*command, "--default-artifact-root", artifacts]
