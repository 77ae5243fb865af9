"""Where a search keeps its files, and who may write them."""

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
"""A disk that takes less is full."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class Workspace:
    """Paths of the search ``name`` under ``storage``; all absolute, nothing is created by looking."""

    LOCK_FILES: ClassVar = frozenset({".lock", ".lock-holder.json"})
    """Files of a search's folder that say nothing about the search."""

    storage: Path
    name: str

    def baseline_name(self, method: str = "scratch") -> str:
        """The search that a baseline is."""
        return f"{self.name}-{method}"

    @property
    def directory(self) -> Path:
        """Folder of the search."""
        return self.storage / self.name

    @property
    def ledger(self) -> Path:
        """The ledger's SQLite file, where no database server is named."""
        return self.directory / "ledger.db"

    def baseline_folder(self, method: str = "scratch") -> str:
        """Where a baseline keeps its files, in the search's own folder."""
        return "baseline" if method == "scratch" else f"baseline-{method}"

    def baseline_ledger(self, method: str = "scratch") -> Path:
        """The ledger of a baseline's trials."""
        return self.directory / self.baseline_folder(method) / "ledger.db"

    @property
    def winner(self) -> Path:
        """Models of the winner's and the baseline's last trainings."""
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
        """What the driver and the engines of the search's trials wrote down."""
        return self.directory / LOG_FOLDER

    def checkpoints(self, method_folder: str = "") -> Path:
        """Checkpoints of the search's trials, or of its baseline's."""
        return self.directory / method_folder / "checkpoints"

    def create(self) -> None:
        """Make the folder.

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
        """Say so where something fails, in whatever words, because nothing can be written here.

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
            if (full := _full(error)) and self._concerns(full):  # what was given up has left some room
                raise self._unwritable(full) from error
            raise

    def _unwritable(self, reason: OSError) -> SearchError:
        return SearchError(
            f"storage: {str(self.storage)!r} can't be written any more: {reason.strerror}. What was written "
            "before is whole: once that has passed, the same command goes on."
        )

    def _concerns(self, full: OSError) -> bool:
        """Is it this disk that was full? A failed write names no file: then it is the one with less left."""
        if full.filename is not None:
            return Path(os.fsdecode(full.filename)).absolute().is_relative_to(self.storage)
        return shutil.disk_usage(self.storage).free <= shutil.disk_usage(tempfile.gettempdir()).free

    def _probe(self) -> None:
        """Write something to the disk, and remove it."""
        probe = self.directory / f".probe-{os.getpid()}"
        try:
            with probe.open("wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second command with the same name out.

        Raises:
            SearchError: another process is running this search; the message names it.
        """
        lock = FileLock(self.directory / ".lock")
        holder = self.directory / ".lock-holder.json"
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise SearchError(
                f"name: the search {self.name!r} is already running{_words(holder)}. "
                "Wait for it, or choose another --name."
            ) from None
        try:
            holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()


def _full(error: BaseException | None) -> OSError | None:
    """What says of a full disk, in ``error`` or in what led to it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


def _words(holder: Path) -> str:
    try:
        known = json.loads(holder.read_text())
    except (OSError, ValueError):
        return ""
    return f" in process {known.get('pid')} on host {known.get('host')!r}"
