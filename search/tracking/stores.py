"""Where MLflow keeps runs and models: addresses of tracking stores, and files beside them. MLflow-free."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import unquote

from trainables.errors import TrackingError, UsageError

DATABASE_NAME = "mlflow.db"
ARTIFACTS_NAME = "mlartifacts"

_SQLITE = "sqlite:///"


def default_tracking_uri(storage: Path) -> str:
    """The SQLite store in ``storage``: ``sqlite:////ABSOLUTE/STORAGE/mlflow.db``.

    Spaces and non-ASCII letters stay as they are, since MLflow reads the path raw; what SQLAlchemy would take
    for an escape or a query is quoted.
    """
    path = str(storage.absolute() / DATABASE_NAME)
    return _SQLITE + path.replace("%", "%25").replace("?", "%3F")


def store_to_read(tracking_uri: str | None, storage: str | Path) -> str:
    """The store that a command reads: ``tracking_uri`` if given, else the one in ``storage``.

    Raises:
        UsageError: none is given, and ``storage`` has none. MLflow would make an empty one.
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
    """The store that a model is looked for in; there need be none for one that is a folder or a file.

    Raises:
        UsageError: the model has to come from a store, and there is none.
    """
    if model_uri.startswith(("models:/", "runs:/")):
        return store_to_read(tracking_uri, storage)
    return tracking_uri or default_tracking_uri(Path(storage))


def absolute_uri(tracking_uri: str) -> str:
    """``tracking_uri`` with a relative SQLite path made absolute: a change of directory can't move it.

    Raises:
        TrackingError: a folder or file path, which MLflow no longer takes as a tracking store.
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
    """The file of a SQLite store, None for any other kind."""
    if not tracking_uri.startswith(_SQLITE):
        return None
    return Path(unquote(tracking_uri.removeprefix(_SQLITE).partition("?")[0]))


def artifact_location(tracking_uri: str, storage: Path) -> str | None:
    """URI of the folder for the artifacts of new experiments; None where a server decides.

    Beside the database for SQLite, in ``storage`` for a database server without MLflow in front of it.
    """
    if tracking_uri.startswith(("http://", "https://", "databricks")):
        return None
    path = sqlite_path(tracking_uri)
    return ((path.parent if path else storage).absolute() / ARTIFACTS_NAME).as_uri()


def check_sqlite(tracking_uri: str) -> None:
    """Make the folder of a SQLite store and look whether the file can be opened and written.

    MLflow itself would retry for more than a minute before it says that it can't.

    Raises:
        TrackingError: it can't.
    """
    path = sqlite_path(tracking_uri)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=20)
        try:
            connection.execute("PRAGMA schema_version").fetchone()
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
        finally:
            connection.close()
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(
            f"tracking_uri: expected a SQLite database that can be written, received {str(path)!r}: {error}. "
            "Repair or move that file, or name another store with --tracking-uri."
        ) from error
