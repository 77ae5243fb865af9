"""The folder of a search: the paths of its files, its lock, and errors for a disk that can't be written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from filelock import FileLock, Timeout

from search.records.event_log import LOG_FOLDER
from trainables.errors import SearchError, UnfreezeError

PROBE_BYTES = 1 << 16
"""A disk with less room is full. Enough for a commit of SQLite: it writes a few pages of 4 KiB."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class Workspace:
    """The paths of the search ``name`` under ``storage``. All are absolute; reading a path creates nothing."""

    LOCK_FILES: ClassVar = frozenset({".lock", ".lock-holder.json"})
    """Names of the lock's files. A folder with nothing else holds no search."""

    storage: Path
    name: str

    def baseline_name(self, method: str = "scratch") -> str:
        """Return the name of a baseline, which is a search of its own."""
        return f"{self.name}-{method}"

    @property
    def directory(self) -> Path:
        """The search's folder."""
        return self.storage / self.name

    @property
    def ledger(self) -> Path:
        """The ledger's SQLite file, unless the user names a database."""
        return self.directory / "ledger.db"

    def baseline_folder(self, method: str = "scratch") -> str:
        """Return the folder of a baseline in the search's folder; without a suffix for ``scratch``, as in the first
        storages.
        """
        return "baseline" if method == "scratch" else f"baseline-{method}"

    def baseline_ledger(self, method: str = "scratch") -> Path:
        """Return the SQLite file of a baseline's ledger."""
        return self.directory / self.baseline_folder(method) / "ledger.db"

    @property
    def winner(self) -> Path:
        """Models of the last trainings of the winner and the baselines."""
        return self.directory / "winner"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.directory / "report.html"

    @property
    def data(self) -> Path:
        """Prepared data, shared by the searches of this storage."""
        return self.storage / ".data"

    @property
    def logs(self) -> Path:
        """Logs of the driver and of the engines that ran the trials."""
        return self.directory / LOG_FOLDER

    def checkpoints(self, method_folder: str = "") -> Path:
        """Checkpoints of the search's trials, or of those of a baseline, by its folder."""
        return self.directory / method_folder / "checkpoints"

    def create(self) -> None:
        """Make the folder, and make sure that it can be written.

        Raises:
            SearchError: it can't be made or written.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._probe()
        except OSError as error:
            raise SearchError(
                f"storage: expected a folder that can be written, received {str(self.storage)!r}: {error.strerror}. "
                "Name another one with --storage DIR."
            ) from error

    @contextmanager
    def explain_unwritable(self) -> Iterator[None]:
        """Raise a SearchError if something fails inside because the storage can't be written.

        A full disk shows as the errors of many libraries, in many words. Instead of recognising them, the storage is
        written to once more after any unexpected error.

        Raises:
            SearchError: the storage is full, read-only or gone.
        """
        try:
            yield
        except UnfreezeError:
            raise
        except Exception as error:
            try:
                self._probe()
            except OSError as reason:
                raise self._unwritable(reason) from error
            # The disk may have room again by now, because whatever failed has removed its unfinished file.
            if (full := _disk_full_error(error)) and self._concerns_storage(full):
                raise self._unwritable(full) from error
            raise

    def _unwritable(self, reason: OSError) -> SearchError:
        return SearchError(
            f"storage: {str(self.storage)!r} can't be written any more: {reason.strerror}. The data written "
            "so far is intact. Solve the problem and run the same command again to continue."
        )

    def _concerns_storage(self, full: OSError) -> bool:
        """Return whether the disk that was full is the storage's, not that of temporary files.

        A failed write names no file. Then it was probably the disk that has less room now.
        """
        if full.filename is not None:
            return Path(os.fsdecode(full.filename)).absolute().is_relative_to(self.storage)
        return shutil.disk_usage(self.storage).free <= shutil.disk_usage(tempfile.gettempdir()).free

    def _probe(self) -> None:
        """Write a small file to the disk and remove it; raises the OSError that this causes."""
        probe = self.directory / f".probe-{os.getpid()}"
        try:
            with probe.open("wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())  # some file systems report a full disk only then
        finally:
            probe.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the search's lock meanwhile, so that no second command runs the same search.

        The lock belongs to the process: the operating system releases it when the process ends, however it ends.

        Raises:
            SearchError: another process is running this search; the message names it.
        """
        lock = FileLock(self.directory / ".lock")
        holder = self.directory / ".lock-holder.json"
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise SearchError(
                f"name: the search {self.name!r} is already running{_describe_holder(holder)}. "
                "Wait for it, or choose another --name."
            ) from None
        try:
            holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            yield
        finally:
            # While the lock is still held: afterwards the file may already be that of the next process.
            holder.unlink(missing_ok=True)
            lock.release()


def _disk_full_error(error: BaseException | None) -> OSError | None:
    """Return the error of a full disk among ``error`` and its causes; None if there is none."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


def _describe_holder(holder: Path) -> str:
    # The lock does not cover this file for readers: it may be missing, or half written by a process that just began.
    try:
        known = json.loads(holder.read_text())
    except (OSError, ValueError):
        return ""
    return f" in process {known.get('pid')} on host {known.get('host')!r}"
