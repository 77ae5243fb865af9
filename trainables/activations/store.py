"""Keeps cache entries in a folder that all processes of a machine share; each entry is computed once.

The cache is a convenience. Problems with it (damaged files, a full disk, missing permission, a lock that times out) are
noted, and the caller continues without it.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from trainables.activations.entry_file import EntryWriter, entry_bytes, read_entry
from trainables.activations.key import EntryKey
from trainables.activations.location import default_cache_budget
from trainables.data.file_locks import LOCKS_SUPPORTED, remove_unused
from trainables.errors import DataError

LOCK_TIMEOUT = 600.0
"""Seconds to wait for another process that computes the same entry."""

_LOG = logging.getLogger(__name__)

Chunks = Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class _File:
    path: Path
    size: int
    used: float


class DiskCache:
    """Entries under ``directory`` that take at most ``budget`` bytes together. Safe for many processes and threads.

    Args:
        directory: created with the first entry.
        budget: in bytes; None for :func:`trainables.activations.location.default_cache_budget`.
        wait: seconds to wait for the lock of an entry.

    Attributes:
        notes: messages about problems, each one once.
        usable: whether entries can still be written.
    """

    def __init__(self, directory: Path, budget: int | None = None, wait: float = LOCK_TIMEOUT) -> None:
        self.directory = directory
        self.budget = default_cache_budget(directory) if budget is None else budget
        self.notes: list[str] = []
        self.usable = LOCKS_SUPPORTED and self.budget > 0
        self._wait = wait
        self._verified: set[tuple[int, int, int]] = set()
        self._lock = threading.Lock()

    def path(self, key: EntryKey) -> Path:
        """Return the path of the entry of ``key``, whether it exists or not."""
        return self.directory / f"{key.digest}.arrow"

    def __contains__(self, key: EntryKey) -> bool:
        return os.path.exists(self.path(key))  # noqa: PTH110 - False, not an error, where nothing may be read

    @property
    def bytes(self) -> int:
        """Bytes that all entries take now."""
        return sum(file.size for file in self._files(".arrow"))

    def open(self, key: EntryKey) -> np.ndarray | None:
        """Map the values (N, …) of ``key``, read-only; None if there are none or they are damaged.

        The file is not evicted as long as the array or a view of it exists.
        """
        path = self.path(key)
        try:
            # Each file is verified once per process: inode, size and time change when it is replaced.
            identity = _identity(path)
            array = read_entry(path, key, verify=identity not in self._verified)
            # Needs no lock: at worst two threads verify the same file.
            self._verified.add(identity)
            _touch(path)
        except FileNotFoundError:
            return None
        except DataError as error:
            self._note(f"{error}; it is computed again")
            self._discard(path)
            return None
        except OSError as error:
            self._note(f"cache {self.directory}: can't read ({error.strerror or error})")
            return None
        return array

    def get_or_compute(
        self,
        key: EntryKey,
        rows: int,
        shape: tuple[int, ...],
        chunks: Chunks,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> np.ndarray | None:
        """Return the entry of ``key``, and write it from ``chunks`` if it does not exist; None if that fails.

        Args:
            key: key of the entry.
            rows: number of images.
            shape: shape of the values of one image.
            chunks: computes the values in order, (n, …) float16 or float32; called at most once.
            waiting: context that is entered while another process holds the entry's lock.
        """
        if not self.usable:
            return None
        try:
            self._prepare()
            lock = FileLock(self.directory / "locks" / f"{key.digest}.lock", timeout=self._wait)
            with waiting():
                held = lock.acquire()
            with held:
                # The process that held the lock before has probably written the entry.
                found = self.open(key)
                if found is None and self._write(key, rows, shape, chunks):
                    found = self.open(key)
                return found
        except Timeout:
            self._note(
                f"cache {self.directory}: another process has been computing an entry for {self._wait:.0f} s; "
                "going on without it"
            )
        except NotImplementedError as error:  # filelock, on a file system without locks
            self._give_up(OSError(errno.ENOTSUP, str(error)))
        except OSError as error:
            self._give_up(error)
        return None

    def _write(self, key: EntryKey, rows: int, shape: tuple[int, ...], chunks: Chunks) -> bool:
        needed = entry_bytes(rows, shape)
        # One writer at a time makes room and claims it with a draft of the full size, so that two can't claim the same.
        with FileLock(self.directory / "locks" / "room.lock", timeout=self._wait):
            if not self._make_room(needed):
                self._note(
                    f"cache {self.directory}: no room for {needed / 1e6:.1f} MB within {self.budget / 1e6:.1f} MB "
                    "next to the entries in use"
                )
                return False
            draft = EntryWriter(self.directory / f"{key.digest}-{os.getpid()}.partial", key, rows, shape)
        try:
            for chunk in chunks():
                draft.append(chunk)
            draft.finish(self.path(key))
        finally:
            draft.close()  # removes the draft unless it was finished
        return True

    def _make_room(self, needed: int) -> bool:
        """Remove leftovers of dead writers, then the least recently used entries, until ``needed`` bytes fit.

        Returns whether they fit. Entries in use are locked and stay.
        """
        if needed > self.budget:
            return False
        # Drafts of living writers are locked, so only those of dead writers are removed.
        for file in self._files(".partial"):
            remove_unused(file.path)
        entries = sorted(self._files(".arrow"), key=lambda file: file.used)
        taken = sum(file.size for file in [*entries, *self._files(".partial")])
        for file in entries:
            if taken + needed <= self.budget:
                break
            if remove_unused(file.path):
                taken -= file.size
                # At worst a process holds this lock now and another one computes the same entry: each writes
                # a draft of its own.
                (self.directory / "locks" / f"{file.path.stem}.lock").unlink(missing_ok=True)
        return taken + needed <= self.budget

    def _files(self, suffix: str) -> list[_File]:
        found = []
        for path in self.directory.glob(f"*{suffix}"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process removed it meanwhile
                continue
            # The access time is set explicitly by _touch: many file systems are mounted without access times.
            found.append(_File(path, status.st_size, status.st_atime))
        return found

    def _prepare(self) -> None:
        (self.directory / "locks").mkdir(parents=True, exist_ok=True)
        tag = self.directory / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_text(_TAG)

    def _discard(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Stop writing; existing entries can still be read."""
        self.usable = False
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = "the disk is full" if full else f"can't write ({error.strerror or error})"
        self._note(f"cache {self.directory}: {reason}; going on without keeping more activations on disk")

    def _note(self, words: str) -> None:
        with self._lock:
            if words in self.notes:
                return
            self.notes.append(words)
        _LOG.warning(words)


_TAG = """Signature: 8a477f597d28d172789f06886806bc55
# Activations that unfreeze computes again when they are gone. See https://bford.info/cachedir/
"""


def _identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _touch(path: Path) -> None:
    """Record that ``path`` is used now. A cache that can only be read is left as it is."""
    try:
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    except (PermissionError, FileNotFoundError):
        return
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
