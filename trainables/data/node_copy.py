"""Copies a prepared task from a shared disk to the node's own disk.

Each node copies a task once, however many of its processes need it; they map the copy into memory. The copy is kept for
later searches. It is verified when it is made, and again if its files or the boot of the machine have changed since
the last verification. A damaged copy is replaced.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from trainables.data.file_locks import LOCKS_SUPPORTED, hold_lock, try_lock_exclusive
from trainables.data.inputs.source import SPLITS, printable
from trainables.data.task import TASK_FILE, Task, open_task, task_digest
from trainables.errors import DataError

MAX_UNUSED_COPIES = 3
"""Number of copies without a reader that are kept, the most recently used ones."""

MIN_FREE_SHARE = 0.1
"""Share of the disk that has to stay free. A task that does not fit is read in place."""

COPIES_FOLDER = "data"
_CHECKED, _USED, _PARTIAL = ".checked", ".used", ".partial"

_LOG = logging.getLogger(__name__)


def local_copy(task: Path, cache: Path | None) -> Path:
    """Return the folder to read ``task`` from: a copy on this node's disk, or ``task`` itself.

    The task is read in place if there is no cache, if the disk has no room for a copy, or if both are on one file
    system, where a copy would gain nothing. A copy is not removed while this process runs.

    Args:
        task: folder of the task, perhaps on a disk that many nodes share.
        cache: the node's cache folder; None if there is none.

    Raises:
        DataError: ``task`` is missing, incomplete or damaged.
    """
    shared = open_task(task)
    if cache is None or not LOCKS_SUPPORTED:
        return task
    try:
        folder = cache / COPIES_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        # On one file system a copy would be read no faster than the task itself.
        if folder.stat().st_dev == task.stat().st_dev:
            return task
        return _fetched(shared, folder) or task
    except (OSError, NotImplementedError) as error:
        # filelock raises NotImplementedError on a file system without locks.
        _LOG.warning("data: can't copy %s to this node (%s); reading it in place", task, error)
        return task


def _fetched(shared: Task, folder: Path) -> Path | None:
    mine = folder / f"{shared.digest[:32]}-{shared.name[:40]}"
    with FileLock(_lock_of(mine)):
        if not _whole(mine, shared.digest):
            if not _make_room(folder, shared):
                _LOG.warning("data: no room for a copy of %s in %s; reading it in place", shared.name, folder)
                return None
            _fetch(shared, mine)
        # The time of this file orders copies by their last use; its lock keeps the copy as long as the process lives.
        # Both lines run under the lock of the copy: otherwise another process could remove it before it is in
        # use.
        (mine / _USED).touch()
        hold_lock(mine / _USED)
    return mine


def _fetch(shared: Task, mine: Path) -> None:
    """Copy and verify the task under a temporary name, then rename it: a copy is complete as soon as it exists."""
    partial = mine.with_name(mine.name + _PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(mine, ignore_errors=True)
    try:
        partial.mkdir()
        for name in _files():
            shutil.copyfile(shared.directory / name, partial / name)
        # The record of this verification stays valid after the rename, which changes no size and no
        # modification time.
        if not _checked(partial, shared.digest):
            raise DataError(
                f"{printable(shared.directory)} is damaged: what was read there is not what was prepared. Delete it "
                "and run the search again."
            )
        partial.rename(mine)  # atomic: a copy with its final name is complete
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _whole(mine: Path, digest: str) -> bool:
    """Whether a copy exists and is unchanged since it was last verified, or passes a new verification."""
    try:
        return (mine / _CHECKED).read_text() == _state(mine) or _checked(mine, digest)
    except (FileNotFoundError, NotADirectoryError):
        return mine.is_dir() and all((mine / name).exists() for name in _files()) and _checked(mine, digest)


def _checked(mine: Path, digest: str) -> bool:
    """Read all files of a copy and compare the digest; record the copy's state if it is whole."""
    try:
        whole = task_digest(open_task(mine)) == digest
    except DataError:
        return False
    if whole:
        (mine / _CHECKED).write_text(_state(mine))
    return whole


def _state(mine: Path) -> str:
    """Return text that changes when a file of the copy does, and with each boot.

    After a power cut the disk may lack data that was written before, so each boot asks for a new verification.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")
    facts = [[name, s.st_size, s.st_mtime_ns] for name in _files() for s in [(mine / name).stat()]]
    return json.dumps([boot.read_text().strip() if boot.exists() else "", facts])


def _make_room(folder: Path, shared: Task) -> bool:
    """Remove unused copies, least recently used first, until there is room for one more; return whether there is."""
    needed = sum((shared.directory / name).stat().st_size for name in _files())
    idle = sorted(
        (p for p in folder.iterdir() if p.is_dir() and (p / _USED).exists()),
        key=lambda p: (p / _USED).stat().st_mtime_ns,
    )
    while idle and (len(idle) > MAX_UNUSED_COPIES or not _fits(folder, needed)):
        _remove_unused(idle.pop(0))
    return _fits(folder, needed)


def _fits(folder: Path, needed: int) -> bool:
    disk = shutil.disk_usage(folder)
    return disk.free - needed >= MIN_FREE_SHARE * disk.total


def _remove_unused(copy: Path) -> None:
    """Remove a copy unless a process reads it or is about to: the latter holds the copy's lock."""
    # The caller holds the lock of another copy. Two processes that waited here for each other's copy would
    # deadlock.
    with suppress(Timeout), FileLock(_lock_of(copy), timeout=0):
        descriptor = os.open(copy / _USED, os.O_RDONLY)
        try:
            if try_lock_exclusive(descriptor):
                shutil.rmtree(copy, ignore_errors=True)
        finally:
            os.close(descriptor)


def _lock_of(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.lock")


def _files() -> list[str]:
    return [*(f"{split}.arrow" for split in SPLITS), TASK_FILE]
