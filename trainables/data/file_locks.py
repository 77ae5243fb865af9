"""Who reads a file: a shared lock on the open file, which ends with the last mapping of it.

The lock belongs to the open file, and a mapping keeps its file open; so an array that is still read anywhere, in
whichever process, keeps its file from being removed, and a killed process leaves no lock behind.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from types import ModuleType

from trainables.errors import DataError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCKS_SUPPORTED = fcntl is not None
"""Whether this system has such locks; without them there is no cache on disk."""


_HELD: list[int] = []
"""Descriptors that stay open until the process ends."""


def map_locked(path: Path) -> mmap.mmap:
    """Map ``path`` for reading; it counts as in use until the mapping is gone.

    Raises:
        OSError: it can't be opened, or not locked.
        DataError: it is empty.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _lock(descriptor, "LOCK_SH")
        if not os.fstat(descriptor).st_size:
            raise DataError(f"cache entry {path}: expected an Arrow file, received an empty one")
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)  # holds a duplicate of the descriptor
    finally:
        os.close(descriptor)


def hold_lock(path: Path) -> None:
    """Count ``path`` as in use for as long as this process lives; once more does no harm."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    _lock(descriptor, "LOCK_SH")
    _HELD.append(descriptor)


def map_file(path: Path) -> mmap.mmap:
    """Map ``path`` for reading without a lock: for its writer, who has one."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def try_lock_exclusive(descriptor: int) -> bool:
    """Lock an open file for its writer; False if somebody uses it."""
    try:
        _lock(descriptor, "LOCK_EX", "LOCK_NB")
    except BlockingIOError:
        return False
    return True


def remove_unused(path: Path) -> bool:
    """Remove ``path`` unless it is in use; True if it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        if not try_lock_exclusive(descriptor):
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *flags: str) -> None:
    if fcntl is None:
        raise OSError("this system has no flock")
    fcntl.flock(descriptor, sum(getattr(fcntl, flag) for flag in flags))
