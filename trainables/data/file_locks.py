"""Shared and exclusive locks on files, so that no file is removed while a process reads it.

The lock (``flock``) belongs to the open file, and a memory mapping keeps its file open. An array that is still in use
in any process therefore protects its file, and a killed process leaves no lock behind.
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
"""Whether this system has ``flock``. Without it there is no cache on disk."""


_HELD: list[int] = []
"""Descriptors that stay open, and so keep their locks, until the process ends."""


def map_locked(path: Path) -> mmap.mmap:
    """Map ``path`` for reading under a shared lock, which ends when the mapping is released.

    Raises:
        OSError: the file can't be opened or locked.
        DataError: the file is empty.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _lock(descriptor, "LOCK_SH")
        if not os.fstat(descriptor).st_size:
            raise DataError(f"cache entry {path}: expected an Arrow file, received an empty one")
        # The mapping holds a duplicate of the descriptor and with it the lock.
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)


def hold_lock(path: Path) -> None:
    """Lock ``path`` for reading until this process ends. Calling it again for the same file does no harm."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    _lock(descriptor, "LOCK_SH")
    _HELD.append(descriptor)


def map_file(path: Path) -> mmap.mmap:
    """Map ``path`` for reading without a lock. For the writer of a file, which already holds its lock."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def try_lock_exclusive(descriptor: int) -> bool:
    """Try to lock an open file exclusively, without waiting; return whether that succeeded."""
    try:
        _lock(descriptor, "LOCK_EX", "LOCK_NB")
    except BlockingIOError:
        return False
    return True


def remove_unused(path: Path) -> bool:
    """Remove ``path`` unless a process uses it; return whether the file is gone."""
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
