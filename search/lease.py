"""Who drives a search whose ledger is on a database server, where no file lock reaches.

The driver changes a mark in the ledger every few seconds. Whoever wants to drive watches that mark: one that changes
belongs to a living driver, one that does not to a dead one. No clocks are compared.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trainables.errors import LedgerError, SearchError

BEAT_SECONDS = 3.0
"""Between two changes of a driver's mark."""

PATIENCE = 12.0
"""Seconds without a change after which a driver is taken for dead."""

KEY = "driver"


class Notes(Protocol):
    """Where a mark is kept: :class:`~search.ledger.Ledger`."""

    def note(self, key: str, value: object) -> None:
        """Keep a value."""
        ...

    def noted(self, key: str) -> Any:
        """The value that is kept, as the database has it now."""
        ...


@dataclass
class Lease:
    """The right to drive the search ``name``."""

    notes: Notes
    name: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    beat_seconds: float = BEAT_SECONDS
    patience: float = PATIENCE

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lease.

        Raises:
            SearchError: a living process holds it; the message names process and host.
        """
        self._take()
        ended = threading.Event()
        beating = threading.Thread(target=self._beat, args=(ended,), name="unfreeze-lease", daemon=True)
        beating.start()
        try:
            yield
        finally:
            ended.set()
            beating.join()
            self._give_up()

    def _take(self) -> None:
        holder = self.notes.noted(KEY)
        if holder and not died_here(holder) and self._lives(holder):
            raise SearchError(
                f"name: the search {self.name!r} is already running in process {holder.get('pid')} on host "
                f"{holder.get('host')!r}. Wait for it, or choose another --name."
            )
        self._mark(0)
        time.sleep(
            min(0.5, self.beat_seconds / 4)
        )  # two may have found the same dead driver: the last word counts
        winner = self.notes.noted(KEY) or {}
        if winner.get("token") != self.token:
            raise SearchError(
                f"name: the search {self.name!r} was begun at the same moment by process {winner.get('pid')} on "
                f"host {winner.get('host')!r}. Wait for it, or choose another --name."
            )

    def _lives(self, holder: dict[str, Any]) -> bool:
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            time.sleep(min(0.5, self.beat_seconds / 2))
            now = self.notes.noted(KEY)
            if not now:
                return False
            if (now.get("token"), now.get("beat")) != (holder.get("token"), holder.get("beat")):
                return True
        return False

    def _beat(self, ended: threading.Event) -> None:
        beat = 0
        while not ended.wait(self.beat_seconds):
            beat += 1
            try:
                self._mark(beat)
            except LedgerError:
                continue  # the database is away; the search itself says so if that lasts

    def _mark(self, beat: int) -> None:
        self.notes.note(
            KEY,
            {
                "token": self.token,
                "beat": beat,
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "boot": boot_id(),
            },
        )

    def _give_up(self) -> None:
        holder = self.notes.noted(KEY)
        if holder and holder.get("token") == self.token:
            self.notes.note(KEY, None)


def boot_id() -> str:
    """What tells this start of this machine from any other; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def died_here(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine, and is gone."""
    if not boot_id() or holder.get("boot") != boot_id() or holder.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, KeyError, TypeError, ValueError):
        return False
    return False
