"""Archives an earlier search of the same name for ``--fresh``, so that a new one can begin. Nothing is deleted."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from search.config.choices import BASELINE_SOURCES
from search.ledger.database import has_study, rename_study
from search.ledger.driver_lease import Lease
from search.ledger.driver_lease_row import LeaseRow
from search.ledger.workspace import Workspace
from trainables.errors import SearchError

ARCHIVE_FOLDER = ".archive"
"""Folder of a storage that holds the archived searches."""


def archive(workspace: Workspace, ledger: str | None) -> Path | None:
    """Move the search's folder into the archive, and give its studies in the database another name.

    The folder is moved first, in one step. If the process is killed between the two, the studies are still found under
    the search's name, and the same command archives them.

    Args:
        workspace: the search's folder.
        ledger: URL of the database that holds its ledger; None if the ledger is a file in the folder.

    Returns:
        The folder in the archive; None if there was nothing to archive.

    Raises:
        SearchError: the folder can't be moved, or the search is running, here or on another machine.
    """
    nothing = not any(p.name not in Workspace.LOCK_FILES for p in _entries(workspace.directory))
    if nothing and ledger is None:
        return None
    with _not_driven(ledger, workspace.name):
        return _move(workspace, ledger)


@contextmanager
def _not_driven(ledger: str | None, name: str) -> Iterator[None]:
    """Hold the driver's lease meanwhile, so that no other machine drives the search that is archived."""
    if ledger is None or not has_study(ledger, name):
        yield
        return
    with Lease(LeaseRow(ledger, name), name).acquired():
        yield


def _move(workspace: Workspace, ledger: str | None) -> Path:
    # The random part distinguishes two searches that are archived within one second.
    label = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:4]}"
    archived = workspace.storage / ARCHIVE_FOLDER / f"{workspace.name}-{label}"
    try:
        archived.parent.mkdir(exist_ok=True)
        with workspace.locked():
            workspace.directory.rename(archived)
            # The lock's files have moved too. They belong to this process, not to the search in the archive.
            for name in Workspace.LOCK_FILES:
                (archived / name).unlink(missing_ok=True)
    except OSError as error:
        raise SearchError(
            f"fresh: expected a folder that can be moved, received {str(workspace.directory)!r}: {error.strerror}"
        ) from error
    if ledger is not None:
        for name in (workspace.name, *map(workspace.baseline_name, BASELINE_SOURCES)):
            rename_study(ledger, name, f"{name} (put away {label})")
    return archived


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
