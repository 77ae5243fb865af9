"""Trained probes of this process, each trained once, by the first trial that asks; the others wait for it.

Weights as a small file: a digest, a line of JSON, float32 values. Written whole or not at all, checked when read.

The folder of trained probes that all processes of a machine share: each is trained by whoever is first.

Whatever is wrong with it (damage, no space, no permission, a lock that does not come) is noted, and the caller goes on
without.
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
_DIGEST = hashlib.sha256().digest_size
_FLOAT = np.dtype("<f4")

Shapes = Sequence[tuple[int, ...]]


def write_weights(path: Path, key: str, weights: Sequence[np.ndarray]) -> None:
    """Write ``weights`` of ``key`` to ``path``. One writer at a time.

    Raises:
        OSError: no space left, or no permission.
    """
    head = _head(key, [w.shape for w in weights])
    body = b"".join([head, *(np.ascontiguousarray(w, _FLOAT).tobytes() for w in weights)])
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
    """The weights of ``key``, float32 arrays of ``shapes``, read-only.

    Raises:
        FileNotFoundError: no such file.
        OSError: it can't be read.
        DataError: it is damaged or holds something else.
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


MAX_MEMORY_BYTES = 256 * 2**20
"""Bytes of probes in memory; those that were not asked for longest go first."""


class ProbeCache:
    """Weights by key, in memory and in ``folder``, if there is one. Safe to use from several threads.

    Args:
        folder: that this machine's processes share; None for none.
        budget: bytes in memory.

    Attributes:
        trained: how many were trained here.
    """

    def __init__(self, folder: ProbeFolder | None = None, budget: int = MAX_MEMORY_BYTES) -> None:
        self.folder = folder
        self.budget = budget
        self.trained = 0
        self._kept: OrderedDict[str, Weights] = OrderedDict()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def get(self, key: str, shapes: Shapes, train: Callable[[], Weights], account: CostAccount) -> Weights:
        """The weights of ``key``, float32 arrays of ``shapes``, which nobody may change.

        ``train`` is called at most once, where they are nowhere; what it raises is raised. ``account``, of the trial
        that asks, is told how long it waited for others.
        """

        def counted() -> Weights:
            weights = train()
            with self._lock:
                self.trained += 1
            return weights

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


MAX_FOLDER_BYTES = 256 * 2**20
"""Files take no more than this together; the oldest go first."""

LOCK_SECONDS = 600.0
"""Seconds to wait for another process that trains the same probe."""

_LOG = logging.getLogger(__name__)

Weights = list[np.ndarray]


class ProbeFolder:
    """Files under ``directory``, of at most ``budget`` bytes together. Safe for many processes and threads.

    Attributes:
        notes: what went wrong, in words, each thing once.
    """

    def __init__(self, directory: Path, budget: int = MAX_FOLDER_BYTES, wait: float = LOCK_SECONDS) -> None:
        self.directory = directory
        self.budget = budget
        self.notes: list[str] = []
        self._wait = wait
        self._lock = threading.Lock()

    def path(self, key: str) -> Path:
        """Where the weights of ``key`` are, if they are kept."""
        return self.directory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.probe"

    def get(self, key: str, shapes: Shapes, train: Callable[[], Weights], account: CostAccount) -> Weights:
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
    def _locked(self, file: Path, account: CostAccount) -> Iterator[bool]:
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
