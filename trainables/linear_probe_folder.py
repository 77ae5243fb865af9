"""The folder of trained probes that all processes of a machine share: each is trained by whoever is first.

Whatever is wrong with it (damage, no space, no permission, a lock that does not come) is noted, and the caller goes on
without.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import BaseFileLock, FileLock, Timeout

from trainables.cost_account import Account
from trainables.errors import DataError
from trainables.linear_probe_file import Shapes, read_weights, write_weights

MOST_BYTES = 256 * 2**20
"""Files take no more than this together; the oldest go first."""

WAIT = 600.0
"""Seconds to wait for another process that trains the same probe."""

_LOG = logging.getLogger(__name__)

Weights = list[np.ndarray]


class LinearProbeFolder:
    """Files under ``directory``, of at most ``budget`` bytes together. Safe for many processes and threads.

    Attributes:
        notes: what went wrong, in words, each thing once.
    """

    def __init__(self, directory: Path, budget: int = MOST_BYTES, wait: float = WAIT) -> None:
        self.directory = directory
        self.budget = budget
        self.notes: list[str] = []
        self._wait = wait
        self._lock = threading.Lock()

    def path(self, key: str) -> Path:
        """Where the weights of ``key`` are, if they are kept."""
        return self.directory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.probe"

    def get(self, key: str, shapes: Shapes, train: Callable[[], Weights], account: Account) -> Weights:
        """The weights of ``key``, read, or trained and written; what ``train`` raises is raised."""
        path = self.path(key)
        found = self._read(path, key, shapes)
        if found is not None:
            return found
        with self._locked(path.with_suffix(".lock"), account) as held:
            found = self._read(path, key, shapes) if held else None
            if found is None:
                found = train()
                if held:
                    self._write(path, key, found)
            return found

    @contextmanager
    def _locked(self, file: Path, account: Account) -> Iterator[bool]:
        """No other process looks for the same probe meanwhile, if what is inside gets True."""
        lock: BaseFileLock | None = None
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            wanted = FileLock(file, timeout=self._wait)
            with account.timing("wait"):
                wanted.acquire()
            lock = wanted
        except Timeout:
            self._note(f"another process has been training one for {self._wait:.0f} s; going on without it")
        except (OSError, NotImplementedError) as error:  # the latter on file systems without locks
            self._note(f"can't write ({_reason(error)}); going on without keeping them on disk")
        try:
            yield lock is not None
        finally:
            if lock is not None:
                lock.release()

    def _read(self, path: Path, key: str, shapes: Shapes) -> Weights | None:
        try:
            return read_weights(path, key, shapes)
        except FileNotFoundError:
            return None
        except DataError as error:
            self._note(f"{error}; it is trained again")
        except OSError as error:
            self._note(f"can't read ({_reason(error)})")
        return None

    def _write(self, path: Path, key: str, weights: Weights) -> None:
        if sum(array.nbytes for array in weights) > self.budget:
            return
        try:
            write_weights(path, key, weights)
            self._trim()
        except OSError as error:
            self._note(f"can't write ({_reason(error)}); going on without keeping them on disk")

    def _trim(self) -> None:
        """Remove the oldest files until the others are within the budget."""
        files = [(path, path.stat()) for path in self.directory.glob("*.probe")]
        taken = sum(status.st_size for _, status in files)
        for path, status in sorted(files, key=lambda file: file[1].st_mtime_ns):
            if taken <= self.budget:
                return
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)
            taken -= status.st_size

    def _note(self, words: str) -> None:
        words = f"linear probes in {self.directory}: {words}"
        with self._lock:
            if words in self.notes:
                return
            self.notes.append(words)
        _LOG.warning(words)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
