"""Connect to MLflow, and turn its errors into clear messages."""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import mlflow
import requests
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from search.records.formatting import without_secrets
from search.tracking import mlflow_environment as mlflow_settings
from search.tracking.mlflow_environment import user_name
from search.tracking.stores import absolute_uri, check_sqlite, sqlite_path
from trainables.errors import TrackingError


def create_store(tracking_uri: str) -> None:
    """Create a SQLite store with all its tables, if the file of ``tracking_uri`` is missing or empty.

    MLflow creates the tables by one migration after another, which takes seconds. A process that died in between
    would leave a file that no later process can open or complete. So the store is created under a temporary name and
    renamed. The caller holds :func:`_migration_lock`.
    """
    path = sqlite_path(tracking_uri)
    if path is None or (path.exists() and path.stat().st_size):
        return
    making = path.with_name(f".{path.name}.making")
    making.unlink(missing_ok=True)  # left by a process that died
    folder, _, rest = tracking_uri.rpartition("/")
    name, mark, options = rest.partition("?")
    uri = f"{folder}/.{name}.making{mark}{options}"
    MlflowClient(tracking_uri=uri, registry_uri=uri)
    making.replace(path)


_REFUSALS = {401: "it requires a login", 403: "it denies the request"}
_CONNECTION_PROBLEMS = (
    (requests.exceptions.RetryError, "its server returns errors"),
    (requests.exceptions.Timeout, "its server does not answer in time"),
    (requests.exceptions.ConnectionError, "no server is running there"),
)
_HINTS = {
    401: "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
    403: "Check the account's permissions, and the server's --allowed-hosts.",
}

_LOCK_TIMEOUT_SECONDS = 60.0


def connect(tracking_uri: str, verbose: bool = False) -> MlflowClient:
    """Return a client for the runs and models at ``tracking_uri``; a missing SQLite store is created (a few seconds).

    Raises:
        TrackingError: the address is not a tracking store, or the store cannot be opened.
    """
    uri = absolute_uri(tracking_uri)
    mlflow_settings.quiet_loggers(verbose)
    check_sqlite(uri)
    with translate_errors(uri), _migration_lock(uri):
        create_store(uri)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _migration_lock(uri: str) -> AbstractContextManager[Any]:
    """Return a lock that lets one process at a time open a SQLite store.

    MLflow creates and migrates the tables of a SQLite file without a lock: two processes at once damage each other's
    work.
    """
    if not uri.startswith("sqlite"):
        return nullcontext()
    # The temporary folder is shared: a user could not open the lock file of another user, so each has their own.
    name = hashlib.sha256(f"{user_name()} {uri}".encode()).hexdigest()[:16]
    return FileLock(
        Path(tempfile.gettempdir()) / f"unfreeze-mlflow-{name}.lock", timeout=_LOCK_TIMEOUT_SECONDS
    )


@contextmanager
def translate_errors(tracking_uri: str) -> Iterator[None]:
    """Turn every error of MLflow into a TrackingError that names the store and the cause."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, OSError) as error:
        status = _status(error)
        where = without_secrets(tracking_uri)
        what = _REFUSALS.get(status) or _connection_problem(error) or first_line(error)
        hint = _HINTS.get(status, "")
        raise TrackingError(
            f"MLflow at {where} cannot complete the request: {what}. {hint}".rstrip()
        ) from error


@contextmanager
def use_store(tracking_uri: str) -> Iterator[None]:
    """Point MLflow's module-level functions to ``tracking_uri`` for the context."""
    # get_tracking_uri() returns a default if none is set; that default must not be fixed by setting it afterwards.
    before = mlflow.get_tracking_uri() if mlflow.tracking.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(tracking_uri)
    # Unless it was set, the registry's address follows the tracking address. Setting it here would fix it for later
    # calls.
    registry = mlflow.get_registry_uri()
    if registry != tracking_uri:
        mlflow.set_registry_uri(tracking_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
        if registry != tracking_uri:
            mlflow.set_registry_uri(registry)


def is_transient(error: TrackingError) -> bool:
    """Return whether the same request may succeed later: the store was unreachable, slow, locked or broken."""
    cause = error.__cause__
    if isinstance(cause, MlflowException):
        return _status(cause) >= 500 or _status(cause) in (408, 429)
    if isinstance(cause, sqlite3.Error):
        return "locked" in str(cause)
    return isinstance(cause, (SQLAlchemyError, requests.RequestException, ConnectionError, TimeoutError))


def is_missing(error: MlflowException) -> bool:
    """Return whether ``error`` means that the requested object does not exist."""
    return bool(error.error_code == "RESOURCE_DOES_NOT_EXIST" or _status(error) == 404)


def first_line(error: Exception, length: int = 300) -> str:
    """Return the first line of an error's message, without passwords."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return without_secrets(lines[0])[:length].rstrip(". ")


def _connection_problem(error: BaseException | None) -> str | None:
    """Describe why the server could not be reached, if that is the root cause of ``error``; else None."""
    while error is not None:
        for kind, words in _CONNECTION_PROBLEMS:
            if isinstance(error, kind):
                return words
        error = error.__cause__ or error.__context__
    return None


def _status(error: Any) -> int:
    return int(error.get_http_status_code()) if isinstance(error, MlflowException) else 0
