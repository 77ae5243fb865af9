"""SQLite files that are written often: a log beside the file, so that a commit need not wait for the disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import OperationalError

LOCAL_FILE_SYSTEMS = frozenset(
    {"apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"}
)
"""Kinds of file systems that one machine has to itself. Elsewhere SQLite's log is not safe; it needs shared memory."""


@contextmanager
def wal_mode(engine: sql.Engine) -> Iterator[None]:
    """Have the SQLite file of ``engine`` keep a write-ahead log meanwhile, if it lies on a local disk.

    What is committed survives the end of this process in any case. After a loss of power the last moments may be
    missing, but nothing from before them. Readers and the writer never wait for each other. Afterwards all is in the
    one file again; after a kill SQLite finds the log by itself.
    """
    if engine.dialect.name != "sqlite" or not on_local_disk(Path(engine.url.database or "")):
        yield
        return
    _switch(engine, "WAL")
    sql.event.listen(engine, "connect", _relax)
    engine.dispose()
    try:
        yield
    finally:
        sql.event.remove(engine, "connect", _relax)
        engine.dispose()
        _switch(engine, "DELETE")


def on_local_disk(path: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    """Whether no other machine can see ``path``; False where the system does not say."""
    try:
        listed = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return False
    kinds = {fields[1].replace("\\040", " "): fields[2] for fields in listed if len(fields) > 2}
    whole = path.absolute()
    nearest = next((str(p) for p in (whole, *whole.parents) if str(p) in kinds), None)
    return nearest is not None and kinds[nearest] in LOCAL_FILE_SYSTEMS


def _switch(engine: sql.Engine, mode: str) -> None:
    with suppress(OperationalError), engine.connect() as connection:  # somebody reads: it stays as it is
        connection.exec_driver_sql(f"PRAGMA journal_mode={mode}")


def _relax(connection: Any, record: Any) -> None:
    """In a log, NORMAL keeps the file whole without waiting for the disk at each commit."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
