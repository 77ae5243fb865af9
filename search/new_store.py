"""A new SQLite store of MLflow's is there whole or not at all.

MLflow makes its tables one migration after another, in some seconds. A process that dies in between would leave a file
that no later one can open or complete.
"""

from __future__ import annotations

from mlflow import MlflowClient

from search.tracking.stores import sqlite_path


def make_store(tracking_uri: str) -> None:
    """Make the SQLite file of ``tracking_uri`` with all its tables, if it is missing or empty; others are left alone.

    Only one process at a time may do so.
    """
    path = sqlite_path(tracking_uri)
    if path is None or (path.exists() and path.stat().st_size):
        return
    making = path.with_name(f".{path.name}.making")
    making.unlink(missing_ok=True)  # of a process that has died
    folder, _, rest = tracking_uri.rpartition("/")
    name, mark, options = rest.partition("?")
    uri = f"{folder}/.{name}.making{mark}{options}"
    MlflowClient(tracking_uri=uri, registry_uri=uri)
    making.replace(path)
