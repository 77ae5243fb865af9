"""Keeps trained probes, in memory and in a folder that all processes of a machine share, so that each is trained once.

The first trial that needs a probe trains it; others wait for it. A file holds a SHA-256 digest, a line of JSON, and
float32 values. It is written as a whole or not at all, and checked when it is read. If anything is wrong with the
folder (damage, no space, no permission, a lock that is not released) a warning is logged, and the trial goes on without
it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import BaseFileLock, FileLock, Timeout

from trainables.cost_account import CostAccount
from trainables.errors import DataError

PROBE_FORMAT = 1
"""Version of the file format. A file of another version is refused, and its probe is trained again."""

MAX_MEMORY_BYTES = 256 * 2**20
"""Probes in memory, in bytes; the least recently used ones are dropped first."""

MAX_FOLDER_BYTES = 256 * 2**20
"""Files of probes, in bytes; the oldest are removed first."""

LOCK_SECONDS = 600.0
"""Seconds to wait for another process that trains the same probe, before training it here, too."""

_DIGEST = hashlib.sha256().digest_size
_FLOAT = np.dtype("<f4")
_LOG = logging.getLogger(__name__)

Weights = list[np.ndarray]
Shapes = Sequence[tuple[int, ...]]


class ProbeCache:
    """The probes of this process by key. Safe to use from several threads.

    Args:
        folder: files that the processes of this machine share; None keeps probes in memory only.
        budget: bytes in memory; 0 keeps none.

    Attributes:
        trained: how many probes were trained in this process.
    """

    def __init__(self, folder: ProbeFolder | None = None, budget: int = MAX_MEMORY_BYTES) -> None:
        self.folder = folder
        self.budget = budget
        self.trained = 0
        self._kept: OrderedDict[str, Weights] = OrderedDict()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def get(self, key: str, shapes: Shapes, train: Callable[[], Weights], account: CostAccount) -> Weights:
        """Return the weights of ``key``, and train them if neither memory nor folder has them.

        Args:
            key: everything that the weights depend on.
            shapes: of the float32 arrays.
            train: returns the weights; called at most once. Its errors are raised.
            account: is charged with the seconds spent waiting for another trial or process that trains them.

        Returns:
            Arrays that several trials share: do not change them.
        """

        def counted() -> Weights:
            weights = train()
            with self._lock:
                self.trained += 1
            return weights

        # One lock a key: trials that need the same probe wait for the first of them, others do not.
        with self._lock:
            alone = self._locks[key]
        with account.timing("wait"):
            alone.acquire()
        try:
            found = self._remembered(key)
            if found is None:
                found = self.folder.get(key, shapes, counted, account) if self.folder else counted()
                self._remember(key, found)
            return found
        finally:
            alone.release()

    def _remembered(self, key: str) -> Weights | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _remember(self, key: str, weights: Weights) -> None:
        with self._lock:
            self._kept[key] = weights
            while sum(w.nbytes for kept in self._kept.values() for w in kept) > self.budget:
                self._kept.popitem(last=False)


class ProbeFolder:
    """Files of probes in one directory. Safe to use from many processes and threads.

    Args:
        directory: created if necessary.
        budget: bytes that the files may take together.
        wait: seconds to wait for another process that trains the same probe.

    Attributes:
        notes: what went wrong, each message once.
    """

    def __init__(self, directory: Path, budget: int = MAX_FOLDER_BYTES, wait: float = LOCK_SECONDS) -> None:
        self.directory = directory
        self.budget = budget
        self.notes: list[str] = []
        self._wait = wait
        self._lock = threading.Lock()

    def path(self, key: str) -> Path:
        """Return the file of ``key``, whether it exists or not."""
        return self.directory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.probe"

    def get(self, key: str, shapes: Shapes, train: Callable[[], Weights], account: CostAccount) -> Weights:
        """Return the weights of ``key``: read from a file, or trained and written; see :meth:`ProbeCache.get`."""
        path = self.path(key)
        found = self._read(path, key, shapes)
        if found is not None:
            return found
        with self._locked(path.with_suffix(".lock"), account) as held:
            # Looked for again: another process may have written the file before it released the lock.
            found = self._read(path, key, shapes) if held else None
            if found is None:
                found = train()
                if held:
                    self._write(path, key, found)
            return found

    @contextmanager
    def _locked(self, file: Path, account: CostAccount) -> Iterator[bool]:
        """Keep other processes from training the same probe inside the block; yields whether the lock is held."""
        lock: BaseFileLock | None = None
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            wanted = FileLock(file, timeout=self._wait)
            with account.timing("wait"):
                wanted.acquire()
            lock = wanted
        except Timeout:
            self._note(f"another process has been training one for {self._wait:.0f} s; going on without it")
        except (OSError, NotImplementedError) as error:  # NotImplementedError: the file system has no locks
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
            # A process that waits for a removed lock trains the probe once more, which does no harm.
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


def write_weights(path: Path, key: str, weights: Sequence[np.ndarray]) -> None:
    """Write ``weights`` of ``key`` to ``path``. The caller sees to it that there is one writer at a time.

    Raises:
        OSError: there is no space left, or no permission.
    """
    head = _head(key, [w.shape for w in weights])
    body = b"".join([head, *(np.ascontiguousarray(w, _FLOAT).tobytes() for w in weights)])
    # A fixed name, since the caller holds the lock: what a killed process left is overwritten by the next one.
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(hashlib.sha256(body).digest() + body)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_weights(path: Path, key: str, shapes: Shapes) -> list[np.ndarray]:
    """Return the weights of ``key`` from the file ``path``: read-only float32 arrays of ``shapes``.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        DataError: it is damaged or holds another probe.
    """
    head = _head(key, shapes)
    sizes = [math.prod(shape) for shape in shapes]
    expected = _DIGEST + len(head) + _FLOAT.itemsize * sum(sizes)
    found = path.stat().st_size
    if found != expected:
        raise DataError(f"linear probe {path}: expected {expected:,} bytes, received {found:,}")
    content = path.read_bytes()
    if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
        raise DataError(f"linear probe {path}: expected bytes as they were written, received others")
    if not content.startswith(head, _DIGEST):
        raise DataError(f"linear probe {path}: expected one of {head!r}, received that of another key")
    flat = np.frombuffer(content, _FLOAT, sum(sizes), _DIGEST + len(head))
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _head(key: str, shapes: Shapes) -> bytes:
    facts = {"format": PROBE_FORMAT, "key": key, "shapes": [list(shape) for shape in shapes]}
    return json.dumps(facts).encode() + b"\n"
