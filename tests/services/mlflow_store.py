"""Give searches of tests an empty MLflow store at once: to create one takes MLflow seconds, for its many migrations."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from search.tracking.stores import DATABASE_NAME, default_tracking_uri, sqlite_path


@functools.cache
def empty_store() -> Path:
    """Return the file of an empty store, which is created once in each process."""
    from search.tracking import client

    folder = Path(tempfile.mkdtemp(prefix="unfreeze-empty-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    client.create_store(default_tracking_uri(folder))
    return folder / DATABASE_NAME


def put_empty_store(storage: Path) -> None:
    """Put an empty store into ``storage``, which is created, unless it has one."""
    storage.mkdir(parents=True, exist_ok=True)
    copy_empty_store(default_tracking_uri(storage))


def copy_empty_store(tracking_uri: str) -> None:
    """Do what :func:`search.tracking.client.create_store` does by copying :func:`empty_store`."""
    path = sqlite_path(tracking_uri)
    if path is not None and not (path.exists() and path.stat().st_size):
        shutil.copyfile(empty_store(), path)
