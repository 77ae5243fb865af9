"""The ledger's SQLite file: is it whole, and a copy of it for the day when it is not."""

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
"""Between two copies, while trials end."""


def backup_path(ledger: Path) -> Path:
    """Where the last good copy of ``ledger`` is kept."""
    return ledger.with_name(f"{ledger.stem}.last-good{ledger.suffix}")


def check_ledger_file(ledger: Path) -> None:
    """Make sure that ``ledger`` is a whole database, or not there because nothing ever was.

    Raises:
        LedgerError: it is damaged or has gone; the message says where its last good copy is and how to use it.
    """
    copy = backup_path(ledger)
    if not ledger.exists():
        if copy.exists():
            raise LedgerError(f"ledger: expected {str(ledger)!r}, which is gone.{_way_back(ledger, copy)}")
        return
    trouble = _damage(ledger)
    if trouble:
        raise LedgerError(
            f"ledger: expected a whole database, received {str(ledger)!r}: {trouble}.{_way_back(ledger, copy)}"
        )


class LedgerBackup:
    """Keeps a copy of a ledger's file: whole or not at all. Nothing happens where the ledger is not a file.

    What goes wrong (the disk is full) is told to ``trouble``, once: the search goes on, and so does the older copy.
    """

    def __init__(self, ledger: Path | None, trouble: Callable[[str], None]) -> None:
        self._ledger, self._trouble = ledger, trouble
        self._last = float("-inf")
        self._told = False

    def save(self, now: bool = False) -> None:
        """Copy the file, unless that was done a moment ago."""
        moment = time.monotonic()
        if self._ledger is None or (not now and moment - self._last < BACKUP_SECONDS):
            return
        self._last = moment
        try:
            _copy(self._ledger, backup_path(self._ledger))
        except (sqlite3.Error, OSError) as error:
            if not self._told:
                self._trouble(f"ledger: {str(self._ledger)!r} can't be copied: {error}; the search goes on")
            self._told = True


def _copy(ledger: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        source = sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)
        with closing(source), closing(sqlite3.connect(temporary)) as copied:
            source.backup(copied)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _damage(ledger: Path) -> str | None:
    try:
        with closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else str(found).splitlines()[-1]


def _way_back(ledger: Path, copy: Path) -> str:
    if not copy.exists():
        return " No copy of it was kept: begin anew with --fresh, which puts this search away and deletes nothing."
    if _damage(copy):
        return f" Its copy {str(copy)!r} is damaged too: begin anew with --fresh, which deletes nothing."
    made = datetime.fromtimestamp(copy.stat().st_mtime).astimezone()
    return (
        f"\nThe last good copy is of {made:%Y-%m-%d %H:%M:%S}. To go on from it, run this and then the same "
        f"command again:\n\n  cp {shlex.quote(str(copy))} {shlex.quote(str(ledger))}\n{_without_log(ledger)}"
    )


def _without_log(ledger: Path) -> str:
    """SQLite would take the log of a killed driver for the copy's."""
    left = [p for p in (Path(f"{ledger}-wal"), Path(f"{ledger}-shm")) if p.exists()]
    return f"  rm {shlex.join(map(str, left))}\n" if left else ""
