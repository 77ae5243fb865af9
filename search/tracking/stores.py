"""Resolve the addresses of MLflow tracking stores, without importing MLflow."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import unquote

from trainables.errors import TrackingError, UsageError

DATABASE_NAME = "mlflow.db"
ARTIFACTS_NAME = "mlartifacts"

_SQLITE = "sqlite:///"


def default_tracking_uri(storage: Path) -> str:
    """Return the address of the SQLite store in ``storage``: ``sqlite:////ABSOLUTE/STORAGE/mlflow.db``.

    Spaces and non-ASCII letters are not quoted, since MLflow reads the path unquoted. Only the characters that
    SQLAlchemy would take for an escape or a query are quoted.
    """
    path = str(storage.absolute() / DATABASE_NAME)
    # "%" first: the second replacement adds a "%" itself.
    return _SQLITE + path.replace("%", "%25").replace("?", "%3F")


def store_to_read(tracking_uri: str | None, storage: str | Path) -> str:
    """Return the store that a command reads: ``tracking_uri`` if given, else the one in ``storage``.

    Raises:
        UsageError: no address is given and ``storage`` has no store; MLflow would create an empty one.
    """
    if tracking_uri:
        return tracking_uri
    if not (Path(storage) / DATABASE_NAME).exists():
        raise UsageError(
            f"--storage: expected a folder with the runs of a search, received {str(storage)!r}, which has no "
            f"{DATABASE_NAME}; name another folder, or a server with --tracking-uri"
        )
    return default_tracking_uri(Path(storage))


def model_store(model_uri: str, tracking_uri: str | None, storage: str | Path) -> str:
    """Return the store in which a model is looked up; a model that is a folder or a file needs none.

    Raises:
        UsageError: the model has to come from a store, and there is none.
    """
    if model_uri.startswith(("models:/", "runs:/")):
        return store_to_read(tracking_uri, storage)
    return tracking_uri or default_tracking_uri(Path(storage))


def absolute_uri(tracking_uri: str) -> str:
    """Return ``tracking_uri`` with a relative SQLite path made absolute, so that it survives a change of directory.

    Raises:
        TrackingError: the address is the path of a folder or file, which MLflow no longer accepts.
    """
    if "://" not in tracking_uri and tracking_uri != "databricks":
        raise TrackingError(
            "tracking_uri: expected the address of an MLflow server (http://HOST:PORT) or a database "
            f"(sqlite:///FILE, postgresql://…), received {tracking_uri!r}"
        )
    path = sqlite_path(tracking_uri)
    if path is None or path.is_absolute():
        return tracking_uri
    return default_tracking_uri(path.parent).removesuffix(DATABASE_NAME) + tracking_uri.rpartition("/")[2]


def sqlite_path(tracking_uri: str) -> Path | None:
    """Return the file of a SQLite store; None for any other kind."""
    if not tracking_uri.startswith(_SQLITE):
        return None
    # SQLAlchemy decodes percent escapes and cuts off the query: the same has to be done here to find the file.
    return Path(unquote(tracking_uri.removeprefix(_SQLITE).partition("?")[0]))


def artifact_location(tracking_uri: str, storage: Path) -> str | None:
    """Return the URI of the folder for artifacts of new experiments; None if a server decides.

    For SQLite it is next to the database; for a database server without an MLflow server it is in ``storage``.
    """
    if tracking_uri.startswith(("http://", "https://", "databricks")):
        return None
    path = sqlite_path(tracking_uri)
    return ((path.parent if path else storage).absolute() / ARTIFACTS_NAME).as_uri()


def check_sqlite(tracking_uri: str) -> None:
    """Create the folder of a SQLite store, and check that the file can be opened and written.

    MLflow itself would retry for more than a minute before it reports an error.

    Raises:
        TrackingError: the file cannot be opened or written.
    """
    path = sqlite_path(tracking_uri)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=20)
        try:
            connection.execute("PRAGMA schema_version").fetchone()
            # Takes the write lock without writing, which fails on a read-only file or directory.
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
        finally:
            connection.close()
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(
            f"tracking_uri: expected a SQLite database that can be written, received {str(path)!r}: {error}. "
            "Repair or move that file, or name another store with --tracking-uri."
        ) from error
