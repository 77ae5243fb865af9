"""``unfreeze ui``: MLflow on a search's runs and models."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from search.arguments import Parser, add_store, add_verbose
from search.stores import artifact_location, default_tracking_uri, sqlite_path
from trainables.errors import TrackingError, UsageError


def parser() -> Parser:
    """Which store, and on which port."""
    made = Parser("ui", "Open the MLflow UI on the runs and models of a storage. Ctrl-C ends it.")
    add_store(made)
    made.add_argument("--host", default="127.0.0.1", help="address to listen on [127.0.0.1]")
    made.add_argument("--port", default="5000", help="port to listen on [5000]")
    add_verbose(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Run MLflow's own server until Ctrl-C; a server that already runs is named, not started."""
    storage = Path(options.storage)
    uri = options.tracking_uri or default_tracking_uri(storage)
    if uri.startswith(("http://", "https://")):
        print(uri)
        return 0
    command = server_command(uri, storage, options.host, options.port)
    print(f"MLflow on {uri}\nopen http://{options.host}:{options.port} and end with Ctrl-C", file=sys.stderr)
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    output = None if options.verbose else subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()
        return 0
    if code:
        raise TrackingError(f"the MLflow UI ended with code {code}; --verbose shows why")
    return 0


def server_command(uri: str, storage: Path, host: str, port: str) -> list[str]:
    """The command line of MLflow's server for a store."""
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
    ]
    return command if artifacts is None else [*command, "--default-artifact-root", artifacts]
