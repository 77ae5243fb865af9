"""Measures how fast this machine reads and writes activations."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil

SAMPLE_BYTES = 32 * 2**20
ROW_BYTES = 32 * 2**10
VALID_SECONDS = 7 * 86400.0
RATES_FILE = "rates.json"

MIN_SECONDS_FOR_FILE = 0.25
"""Activations that take less time to compute are not written to a file, which itself takes some hundredths of a
second."""


@dataclass(frozen=True)
class Rates:
    """Speeds in bytes per second.

    Attributes:
        write: writing.
        cold: reading from the disk.
        hot: reading rows in random order from memory, or from a mapped file in the system's cache.
    """

    write: float
    cold: float
    hot: float


class MachineSpeeds(Protocol):
    """The speeds that the reuse policy needs. They are measured when they are read."""

    @property
    def memory(self) -> Rates:
        """Rates of memory."""

    @property
    def disk(self) -> Rates | None:
        """Rates of the disk; None if there is no cache on disk."""

    @property
    def file_cache(self) -> int:
        """Bytes of files that the system's cache is expected to hold; larger sets are read from the disk itself."""

    @property
    def min_seconds_for_file(self) -> float:
        """Seconds of computation below which activations are not written to a file."""


class MeasuredSpeeds:
    """The speeds of this machine, each measured at most once.

    Args:
        directory: directory of the cache; None if there is no cache on disk.
    """

    min_seconds_for_file = MIN_SECONDS_FOR_FILE

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._memory: Rates | None = None
        self._disk: Rates | None = None
        self._lock = threading.Lock()

    @property
    def memory(self) -> Rates:
        """Rates of memory."""
        with self._lock:
            self._memory = self._memory or memory_rates()
            return self._memory

    @property
    def disk(self) -> Rates | None:
        """Rates of the disk; None without a directory, or if nothing can be written there."""
        with self._lock:
            if self._disk is None and self._directory is not None:
                try:
                    self._disk = disk_rates(self._directory)
                except OSError:
                    self._directory = None  # the store notes it when it tries to write
            return self._disk

    @property
    def file_cache(self) -> int:
        """Half of the memory that is free now, in bytes."""
        return int(psutil.virtual_memory().available // 2)


def memory_rates() -> Rates:
    """Measure the rates of memory, where cold and hot reads are the same."""
    source = np.ones((SAMPLE_BYTES // ROW_BYTES, ROW_BYTES), np.uint8)
    hot = _gather(source)
    return Rates(write=hot, cold=hot, hot=hot)


def disk_rates(directory: Path, now: float | None = None) -> Rates:
    """Return the rates of the disk of ``directory``, measured with a file there at most once a week.

    Args:
        directory: created if it does not exist.
        now: seconds since the epoch; None for the current time.

    Raises:
        OSError: ``directory`` can't be written.
    """
    now = time.time() if now is None else now
    known = _read(directory / RATES_FILE, now)
    if known is not None:
        return known
    rates = _measure(directory)
    # Written under another name and then renamed: other processes never read half a file.
    draft = directory / f"{RATES_FILE}.{os.getpid()}.partial"
    draft.write_text(json.dumps({"measured": now, **asdict(rates)}))
    draft.replace(directory / RATES_FILE)
    return rates


def _measure(directory: Path) -> Rates:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"rates-{os.getpid()}.partial"
    # Random bytes, because a file system may compress zeros and look too fast.
    sample = np.random.default_rng(0).integers(0, 255, SAMPLE_BYTES, np.uint8)
    try:
        began = time.perf_counter()
        with path.open("wb") as file:
            file.write(sample.tobytes())
            file.flush()
            os.fsync(file.fileno())
            write = SAMPLE_BYTES / (time.perf_counter() - began)
            # The system's cache drops the file, so that the first read comes from the disk.
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        mapped = np.memmap(path, np.uint8, "r", shape=(SAMPLE_BYTES // ROW_BYTES, ROW_BYTES))
        return Rates(write, cold=_gather(mapped), hot=_gather(mapped))
    finally:
        path.unlink(missing_ok=True)


def _gather(rows: np.ndarray) -> float:
    """Return the bytes per second of reading ``rows`` (N, …) in random order, as a training epoch does."""
    order = np.random.default_rng(0).permutation(len(rows))
    began = time.perf_counter()
    for start in range(0, len(order), 32):
        rows[order[start : start + 32]]
    return rows.nbytes / max(time.perf_counter() - began, 1e-9)


def _read(path: Path, now: float) -> Rates | None:
    try:
        content = json.loads(path.read_text())
        rates = Rates(*(float(content[name]) for name in ("write", "cold", "hot")))
        fresh = 0.0 <= now - float(content["measured"]) < VALID_SECONDS
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing or damaged: measured again
    return rates if fresh and min(rates.write, rates.cold, rates.hot) > 0 else None
