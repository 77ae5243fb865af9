"""Test that --fresh moves an earlier search into the archive and deletes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from search.ledger.archive import ARCHIVE_FOLDER, archive
from search.ledger.driver_lease import Lease
from search.ledger.driver_lease_row import LeaseRow
from search.ledger.ledger import Ledger, sqlite_url
from search.ledger.workspace import Workspace
from trainables.errors import SearchError

Study = Callable[[str, str, int], Ledger]


@pytest.fixture
def study(open_ledger: Callable[..., Ledger]) -> Study:
    """Return a function that opens a study and adds trials."""

    def filled(url: str, name: str, trials: int) -> Ledger:
        ledger = open_ledger(url, name)
        for _ in range(trials):
            number = ledger.start(lambda trial: {"x": trial.suggest_float("x", 0, 1)}).number
            ledger.finish(number, "failed", reason="crashed")
        return ledger

    return filled


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "my runs", "ü 字")
    made.create()
    return made


def test_archive_moves_the_folder_with_all_its_files(workspace: Workspace, study: Study) -> None:
    study(sqlite_url(workspace.ledger), workspace.name, 3)
    workspace.winner.mkdir()
    (workspace.winner / "model.keras").write_bytes(b"model")
    kept = archive(workspace, None)
    assert kept is not None
    assert kept.parent == workspace.storage / ARCHIVE_FOLDER
    assert not workspace.directory.exists()
    assert (kept / "winner" / "model.keras").read_bytes() == b"model"
    assert len(study(sqlite_url(kept / "ledger.db"), workspace.name, 0).trials) == 3
    assert not {p.name for p in kept.iterdir()} & {".lock-holder.json"}


def test_archive_of_an_empty_workspace_does_nothing(workspace: Workspace) -> None:
    with workspace.locked():
        pass
    assert archive(workspace, None) is None
    assert not (workspace.storage / ARCHIVE_FOLDER).exists()


def test_archive_keeps_several_searches_of_one_name(workspace: Workspace) -> None:
    for content in ("first", "second"):
        workspace.create()
        (workspace.directory / "report.html").write_text(content)
        archive(workspace, None)
    kept = sorted((workspace.storage / ARCHIVE_FOLDER).iterdir())
    assert sorted((k / "report.html").read_text() for k in kept) == ["first", "second"]


def test_archive_renames_the_studies_in_a_database(
    workspace: Workspace, tmp_path: Path, study: Study
) -> None:
    url = sqlite_url(tmp_path / "shared.db")
    study(url, workspace.name, 3)
    study(url, workspace.baseline_name(), 2)
    study(url, "another", 1)
    (workspace.directory / "report.html").write_text("old")
    kept = archive(workspace, url)
    assert kept is not None
    label = kept.name.removeprefix(f"{workspace.name}-")
    assert len(study(url, f"{workspace.name} (put away {label})", 0).trials) == 3
    assert len(study(url, f"{workspace.baseline_name()} (put away {label})", 0).trials) == 2
    assert len(study(url, workspace.name, 0).trials) == 0
    assert len(study(url, "another", 0).trials) == 1


def test_archive_refuses_a_running_search(workspace: Workspace) -> None:
    (workspace.directory / "report.html").write_text("old")
    with workspace.locked(), pytest.raises(SearchError, match="already running"):
        archive(workspace, None)
    assert (workspace.directory / "report.html").read_text() == "old"


def test_archive_refuses_a_search_that_another_machine_drives(
    workspace: Workspace, tmp_path: Path, study: Study
) -> None:
    url = sqlite_url(tmp_path / "shared.db")
    study(url, workspace.name, 3)
    (workspace.directory / "report.html").write_text("old")
    with Lease(
        LeaseRow(url, workspace.name), workspace.name, heartbeat_seconds=0.2, expiry_seconds=1
    ).acquired():
        with pytest.raises(SearchError, match="already running in process"):
            archive(workspace, url)
        assert (workspace.directory / "report.html").read_text() == "old"
        assert len(study(url, workspace.name, 0).trials) == 3
    assert archive(workspace, url) is not None
    assert len(study(url, workspace.name, 0).trials) == 0
