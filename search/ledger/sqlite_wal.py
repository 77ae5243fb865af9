"""Lets a SQLite file keep a write-ahead log (WAL) while trials run, so that a commit need not wait for the disk."""

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
"""Kinds of file systems that no other machine has mounted. On a network file system a write-ahead log can damage the
database: SQLite coordinates it through shared memory, which two machines don't have."""


@contextmanager
def wal_mode(engine: sql.Engine) -> Iterator[None]:
    """Keep a write-ahead log for the SQLite file of ``engine`` meanwhile, if it lies on a local disk.

    What is committed survives the end of this process in any case. After a power failure the last transactions may be
    missing, but the file is whole. Readers and the writer never wait for each other. At the end SQLite moves
    everything into the one file; after a kill it finds the log by itself when the file is opened next.
    """
    if engine.dialect.name != "sqlite" or not on_local_disk(Path(engine.url.database or "")):
        yield
        return
    _set_journal_mode(engine, "WAL")
    # The setting of _disable_commit_sync is per connection: connections that are in the pool already would not have it.
    sql.event.listen(engine, "connect", _disable_commit_sync)
    engine.dispose()
    try:
        yield
    finally:
        sql.event.remove(engine, "connect", _disable_commit_sync)
        engine.dispose()
        _set_journal_mode(engine, "DELETE")


def on_local_disk(path: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    """Return whether ``path`` lies on a file system of this machine alone; False if the system does not tell.

    Args:
        path: a file, which need not exist.
        mounts: the table of mounted file systems, in the format of Linux.
    """
    try:
        listed = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return False
    # The table writes a space in a path as an octal code.
    kinds = {fields[1].replace("\\040", " "): fields[2] for fields in listed if len(fields) > 2}
    whole = path.absolute()
    nearest = next((str(p) for p in (whole, *whole.parents) if str(p) in kinds), None)
    return nearest is not None and kinds[nearest] in LOCAL_FILE_SYSTEMS


def _set_journal_mode(engine: sql.Engine, mode: str) -> None:
    # SQLite refuses to change the mode while another process reads. Either mode is safe, so the file keeps its own.
    with suppress(OperationalError), engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA journal_mode={mode}")


def _disable_commit_sync(connection: Any, record: Any) -> None:
    """Do not wait for the disk at each commit. With a write-ahead log the file stays whole all the same."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
