"""Makes sure that one process at a time drives a search whose ledger is on a database server.

Every search holds a file lock on its storage folder. A driver on another machine may use the same ledger with another
storage, which the file lock does not see. With a ledger on a database server, the driver therefore holds a lease, too:
a row of the ledger that it changes every few seconds (its heartbeat). A process that wants to drive the search watches
the row. If it changes, its holder is alive. If it does not change for :data:`EXPIRY_SECONDS`, the holder is dead, or
suspended (its machine sleeps, its process is stopped), and the lease is taken over.

A suspended driver may wake up at any time and go on writing. Each of its transactions therefore checks the lease first
(:meth:`Lease.fence`), and it checks the lease before it writes anywhere else (:meth:`Lease.check`).

Only changes of the row are observed. The clocks of two machines are never compared, so they need not agree.
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

import sqlalchemy as sql

from search.ledger.driver_lease_row import LeaseHolder, LeaseRow, lease_lost
from trainables.errors import LeaseLost, LedgerError, SearchError

HEARTBEAT_SECONDS = 3.0
"""Time between two changes of the row."""

EXPIRY_SECONDS = 12.0
"""A holder whose row has not changed for so long is dead or suspended. Four heartbeats: one or two may be late because
the database is slow."""


@dataclass
class Lease:
    """The right to drive the search ``name``.

    Attributes:
        row: the row of the ledger that names the holder.
        name: of the search, for messages.
        token: a random word by which the row is recognised as this process's own.
        heartbeat_seconds: see :data:`HEARTBEAT_SECONDS`.
        expiry_seconds: see :data:`EXPIRY_SECONDS`.
        lost: set once another process is found to drive the search.
    """

    row: LeaseRow
    name: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    expiry_seconds: float = EXPIRY_SECONDS
    lost: threading.Event = field(default_factory=threading.Event)
    _confirmed: float = 0.0
    """When the row was last known to be this process's own."""

    @contextmanager
    def acquired(self) -> Iterator[Lease]:
        """Hold the lease meanwhile.

        Raises:
            SearchError: a living process holds it; the message names the process and its host.
        """
        self._acquire()
        ended = threading.Event()
        heart = threading.Thread(target=self._renew_until, args=(ended,), name="unfreeze-lease", daemon=True)
        heart.start()
        try:
            yield self
        finally:
            ended.set()
            # Before the release: a later heartbeat would find the row without this token and report the lease as lost.
            heart.join()
            # If the database can't be reached, the row stays, and the next driver waits until it has expired.
            with suppress(LedgerError):
                self.row.renew(self.token, None)
            self.row.close()

    def fence(self, connection: sql.Connection) -> None:
        """Make sure that this process holds the lease until the transaction of ``connection`` has ended.

        Raises:
            LeaseLost: another process holds it.
        """
        try:
            self.row.lock(connection, self.token)
        except LeaseLost:
            self.lost.set()
            raise

    def check(self) -> None:
        """Make sure that this process held the lease a moment ago. Asks the database only if that is in doubt.

        The heartbeat confirms the lease every few seconds. If it has not done so for two heartbeats, this process may
        have been suspended in between.

        Raises:
            LeaseLost: another process holds it.
            LedgerError: the database can't be reached.
        """
        if self.lost.is_set() or _now() - self._confirmed > 2 * self.heartbeat_seconds:
            holder = LeaseHolder.parse(self.row.read())
            if holder is None or holder.token != self.token:
                self.lost.set()
                raise lease_lost(self.name, holder)

    def _acquire(self) -> None:
        seen = self.row.read()
        holder = LeaseHolder.parse(seen)
        if holder is not None and not died_on_this_machine(holder):
            seen = self._wait_for_expiry(seen)
        # Several processes may have waited for the same holder to expire: the row lets one of them have it.
        if not self.row.compare_and_set(seen, self._holder(0)):
            winner = LeaseHolder.parse(self.row.read())
            pid, host = (winner.pid, winner.host) if winner is not None else (None, None)
            raise SearchError(
                f"name: the search {self.name!r} was begun at the same moment by process {pid} on host {host!r}. "
                "Wait for it, or choose another --name."
            )
        self._confirmed = _now()

    def _wait_for_expiry(self, seen: str | None) -> str | None:
        """Read the row until its holder releases the lease or does not renew it in time. Return the row's text then.

        Args:
            seen: the row's text, as it was read before.
        """
        end = time.monotonic() + self.expiry_seconds
        while time.monotonic() < end:
            time.sleep(min(0.5, self.heartbeat_seconds / 2))
            now = self.row.read()
            holder = LeaseHolder.parse(now)
            if holder is None:
                return now
            # Texts are compared, not times, because the clocks of two machines differ. Each heartbeat changes the text.
            if now != seen:
                raise SearchError(
                    f"name: the search {self.name!r} is already running in process {holder.pid} on host "
                    f"{holder.host!r}. Wait for it, or choose another --name."
                )
        return seen

    def _renew_until(self, ended: threading.Event) -> None:
        beat = 0
        while not self.lost.is_set() and not ended.wait(self.heartbeat_seconds):
            beat += 1
            # The time before the request: the row may change hands while the answer is under way.
            asked = _now()
            with suppress(LedgerError):  # the search itself reports a database that stays unreachable
                if self.row.renew(self.token, self._holder(beat)):
                    self._confirmed = asked
                else:
                    self.lost.set()

    def _holder(self, beat: int) -> LeaseHolder:
        return LeaseHolder(self.token, beat, os.getpid(), socket.gethostname(), boot_id())


def boot_id() -> str:
    """Return a word that identifies this start of this machine; empty if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _now() -> float:
    """Seconds on a clock that also runs while the machine sleeps, if the system has one.

    ``time.monotonic`` stands still during a sleep on Linux, so a driver that has just woken up would believe that its
    lease was confirmed a moment ago.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def died_on_this_machine(holder: LeaseHolder) -> bool:
    """Return whether the holder was a process of this machine that no longer exists. Then nobody has to wait for
    expiry.

    The host's name alone does not identify a machine (containers repeat it), and process numbers start again with each
    start of a machine: both must be the same, and the start too.
    """
    if not boot_id() or holder.boot != boot_id() or holder.host != socket.gethostname():
        return False
    try:
        os.kill(holder.pid, 0)  # signal 0 is not sent; it only checks that the process exists
    except ProcessLookupError:
        return True
    except (OSError, TypeError, ValueError):
        return False
    return False
