"""Checks the ledger's SQLite file and keeps a copy of it, from which a search can be continued if the file is
damaged."""

from __future__ import annotations

import shlex
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path

from trainables.errors import LedgerError

BACKUP_SECONDS = 30.0
"""Least time between two copies while trials run: a copy of a large ledger takes a noticeable part of a second."""


def backup_path(ledger: Path) -> Path:
    """Where the last good copy of ``ledger`` is kept."""
    return ledger.with_name(f"{ledger.stem}.last-good{ledger.suffix}")


def check_ledger_file(ledger: Path) -> None:
    """Make sure that ``ledger`` is a whole database, or that there never was one.

    Raises:
        LedgerError: it is damaged or has gone; the message names its last good copy and how to restore it.
    """
    copy = backup_path(ledger)
    if not ledger.exists():
        # The copy shows that the file was deleted. A new ledger would silently repeat all trials.
        if copy.exists():
            raise LedgerError(
                f"ledger: expected {str(ledger)!r}, which is gone.{_recovery_hint(ledger, copy)}"
            )
        return
    damage = _integrity_error(ledger)
    if damage:
        raise LedgerError(
            f"ledger: expected a whole database, received {str(ledger)!r}: {damage}.{_recovery_hint(ledger, copy)}"
        )


class LedgerBackup:
    """Keeps a copy of a ledger's file, which is always a whole database.

    If a copy can't be made (the disk is full), the search continues with the older copy.

    Args:
        ledger: the file; None if the ledger is on a server, which is not copied.
        report_error: called with a message the first time that a copy can't be made.
    """

    def __init__(self, ledger: Path | None, report_error: Callable[[str], None]) -> None:
        self._ledger, self._report_error = ledger, report_error
        self._last = float("-inf")
        self._reported = False

    def save(self, now: bool = False) -> None:
        """Copy the file, unless that was done less than :data:`BACKUP_SECONDS` ago; ``now`` copies it in any case."""
        moment = time.monotonic()
        if self._ledger is None or (not now and moment - self._last < BACKUP_SECONDS):
            return
        # The time is set before the copy, so that a failed copy is not attempted again at each change.
        self._last = moment
        try:
            _copy(self._ledger, backup_path(self._ledger))
        except (sqlite3.Error, OSError) as error:
            if not self._reported:
                self._report_error(
                    f"ledger: {str(self._ledger)!r} can't be copied: {error}; the search goes on"
                )
            self._reported = True


def _copy(ledger: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        # SQLite's own backup includes what is still in the write-ahead log, and waits for writers. Copying the
        # file's bytes while the driver writes could result in a damaged database.
        source = sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)
        with closing(source), closing(sqlite3.connect(temporary)) as copied:
            source.backup(copied)
        temporary.replace(target)  # in one step: a reader finds the older copy or this one, never a part
    finally:
        temporary.unlink(missing_ok=True)


def _integrity_error(ledger: Path) -> str | None:
    """Return what SQLite finds wrong with the file; None if nothing."""
    try:
        with closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else str(found).splitlines()[-1]


def _recovery_hint(ledger: Path, copy: Path) -> str:
    """Return how to continue after the file was damaged or deleted."""
    if not copy.exists():
        return " There is no copy of it: begin anew with --fresh, which archives this search and deletes nothing."
    if _integrity_error(copy):
        return f" Its copy {str(copy)!r} is damaged too: begin anew with --fresh, which deletes nothing."
    made = datetime.fromtimestamp(copy.stat().st_mtime).astimezone()
    return (
        f"\nThe last good copy is of {made:%Y-%m-%d %H:%M:%S}. To continue from it, run this and then the same "
        f"command again:\n\n  cp {shlex.quote(str(copy))} {shlex.quote(str(ledger))}\n{_remove_log(ledger)}"
    )


def _remove_log(ledger: Path) -> str:
    """Return the command that removes the write-ahead log of a killed driver; SQLite would apply it to the copy."""
    left = [p for p in (Path(f"{ledger}-wal"), Path(f"{ledger}-shm")) if p.exists()]
    return f"  rm {shlex.join(map(str, left))}\n" if left else ""
