"""Who drives a search whose ledger is on a database server, where no file lock reaches.

The driver changes a mark in the ledger every few seconds. Whoever wants to drive watches that mark: one that changes
belongs to a living driver, one that does not to a dead one, or to one that sleeps: its machine is suspended, its
process stopped. Such a driver is taken over from, and may wake at any time. So each of its transactions asks for the
mark first, and what it tells others waits for it. No clocks of two machines are compared.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from search.ledger.driver_lease_row import LeaseRow, parse_holder, taken_over_error
from trainables.errors import LeaseLost, LedgerError, SearchError

HEARTBEAT_SECONDS = 3.0
"""Between two changes of a driver's mark."""

EXPIRY_SECONDS = 12.0
"""Seconds without a change after which a driver is taken for dead."""


@dataclass
class Lease:
    """The right to drive the search ``name``."""

    row: LeaseRow
    name: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    expiry_seconds: float = EXPIRY_SECONDS
    lost: threading.Event = field(default_factory=threading.Event)
    """Set once another process is found to drive the search."""
    _sure: float = 0.0

    @contextmanager
    def acquired(self) -> Iterator[Lease]:
        """Hold the lease.

        Raises:
            SearchError: a living process holds it; the message names process and host.
        """
        self._take()
        ended = threading.Event()
        beating = threading.Thread(target=self._beat, args=(ended,), name="unfreeze-lease", daemon=True)
        beating.start()
        try:
            yield self
        finally:
            ended.set()
            beating.join()
            with suppress(
                LedgerError
            ):  # the database is away: whoever comes next waits until the mark is old
                self.row.renew(self.token, None)
            self.row.close()

    def fence(self, connection: sql.Connection) -> None:
        """Make sure that this process drives the search until the transaction of ``connection`` has ended.

        Raises:
            TakenOver: another process does.
        """
        try:
            self.row.lock(connection, self.token)
        except LeaseLost:
            self.lost.set()
            raise

    def check(self) -> None:
        """Make sure that this process has driven the search until a moment ago; the database is asked if need be.

        Raises:
            TakenOver: another process drives it.
            LedgerError: the database is away.
        """
        if self.lost.is_set() or _now() - self._sure > 2 * self.heartbeat_seconds:
            text = self.row.read()
            if parse_holder(text).get("token") != self.token:
                self.lost.set()
                raise taken_over_error(self.name, text)

    def _take(self) -> None:
        seen = self.row.read()
        holder = parse_holder(seen)
        if holder and not died_on_this_machine(holder):
            seen = self._silent(seen)
        if not self.row.compare_and_set(seen, self._described(0)):
            winner = parse_holder(self.row.read())
            raise SearchError(
                f"name: the search {self.name!r} was begun at the same moment by process {winner.get('pid')} on "
                f"host {winner.get('host')!r}. Wait for it, or choose another --name."
            )
        self._sure = _now()

    def _silent(self, seen: str | None) -> str | None:
        """Watch the mark ``seen`` until its holder must be dead or has given up; the mark as it is then."""
        end = time.monotonic() + self.expiry_seconds
        while time.monotonic() < end:
            time.sleep(min(0.5, self.heartbeat_seconds / 2))
            now = self.row.read()
            holder = parse_holder(now)
            if not holder:
                return now
            if now != seen:
                raise SearchError(
                    f"name: the search {self.name!r} is already running in process {holder.get('pid')} on host "
                    f"{holder.get('host')!r}. Wait for it, or choose another --name."
                )
        return seen

    def _beat(self, ended: threading.Event) -> None:
        beat = 0
        while not self.lost.is_set() and not ended.wait(self.heartbeat_seconds):
            beat += 1
            began = _now()
            with suppress(LedgerError):  # the database is away; the search itself says so if that lasts
                if self.row.renew(self.token, self._described(beat)):
                    self._sure = began
                else:
                    self.lost.set()

    def _described(self, beat: int) -> dict[str, Any]:
        return {
            "token": self.token,
            "beat": beat,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "boot": boot_id(),
        }


def boot_id() -> str:
    """What tells this start of this machine from any other; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _now() -> float:
    """Seconds, those counted in which the machine sleeps, where the system counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def died_on_this_machine(holder: dict[str, Any]) -> bool:
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
