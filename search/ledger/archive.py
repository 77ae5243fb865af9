"""``--fresh``: put an earlier search of the same name away, whole, and begin anew. Nothing is deleted."""

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
"""Where a storage keeps the searches that were put away."""


def archive(workspace: Workspace, ledger: str | None) -> Path | None:
    """Move the search's folder into the archive, and its studies in ``ledger`` (a database's URL) to another name.

    The folder goes first and at once: whoever is killed between both finds the old search as it was.

    Returns:
        The folder in the archive; None if there was nothing to put away.

    Raises:
        SearchError: the folder can't be moved, or the search is running, here or on another machine.
    """
    if not any(p.name not in Workspace.LOCK_FILES for p in _listed(workspace.directory)) and ledger is None:
        return None
    with _driven_by_nobody(ledger, workspace.name):
        return _moved(workspace, ledger)


@contextmanager
def _driven_by_nobody(ledger: str | None, name: str) -> Iterator[None]:
    if ledger is None or not has_study(ledger, name):
        yield
        return
    with Lease(LeaseRow(ledger, name), name).acquired():
        yield


def _moved(workspace: Workspace, ledger: str | None) -> Path:
    label = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:4]}"
    kept = workspace.storage / ARCHIVE_FOLDER / f"{workspace.name}-{label}"
    try:
        kept.parent.mkdir(exist_ok=True)
        with workspace.locked():
            workspace.directory.rename(kept)
            for name in Workspace.LOCK_FILES:
                (kept / name).unlink(missing_ok=True)
    except OSError as error:
        raise SearchError(
            f"fresh: expected a folder that can be moved, received {str(workspace.directory)!r}: {error.strerror}"
        ) from error
    if ledger is not None:
        for name in (workspace.name, *map(workspace.baseline_name, BASELINE_SOURCES)):
            rename_study(ledger, name, f"{name} (put away {label})")
    return kept


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
