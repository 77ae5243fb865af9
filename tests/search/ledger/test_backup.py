"""Test the check of the ledger's SQLite file and the copy that is kept of it."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from search.ledger.backup import LedgerBackup, backup_path, check_ledger_file
from search.ledger.ledger import Ledger, sqlite_url
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import LedgerError


@pytest.fixture
def fill(path: Path, open_ledger: Callable[..., Ledger]) -> Fill:
    """Return a function that opens the ledger and adds trials."""

    def filled(trials: int) -> Ledger:
        ledger = open_ledger(sqlite_url(path))
        for _ in range(trials):
            number = ledger.start(lambda trial: {"x": trial.suggest_float("x", 0, 1)}).number
            ledger.report(number, EpochMetrics(1, 0.5, 1.0, 1.0, 0.1))
            ledger.finish(number, "complete")
        return ledger

    return filled


Fill = Callable[[int], Ledger]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "runs ü 'quoted'" / "字"
    folder.mkdir(parents=True)
    return folder / "ledger.db"


def test_a_missing_ledger_and_a_whole_one_are_accepted(path: Path, fill: Fill) -> None:
    check_ledger_file(path)
    fill(1)
    check_ledger_file(path)
    assert not backup_path(path).exists()


@pytest.mark.parametrize("keep", [0.2, 0.7])
def test_the_message_for_a_truncated_ledger_has_commands_that_restore_the_copy(
    path: Path, fill: Fill, keep: float
) -> None:
    fill(30)
    LedgerBackup(path, pytest.fail).save()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    for companion in ("-wal", "-shm"):
        path.with_name(path.name + companion).unlink(missing_ok=True)
    with pytest.raises(LedgerError, match="expected a whole database") as refused:
        check_ledger_file(path)
    assert "The last good copy is of" in str(refused.value)
    subprocess.run(["bash", "-c", str(refused.value).splitlines()[-1]], check=True)
    check_ledger_file(path)
    assert len(fill(0).trials) == 30


def test_a_deleted_ledger_with_a_copy_is_refused(path: Path, fill: Fill) -> None:
    fill(2)
    LedgerBackup(path, pytest.fail).save()
    path.unlink()
    with pytest.raises(LedgerError, match="which is gone"):
        check_ledger_file(path)


def test_the_message_for_a_ledger_with_a_damaged_copy_names_fresh(path: Path, fill: Fill) -> None:
    path.write_bytes(b"no database" * 1000)
    backup_path(path).write_bytes(b"nor this" * 1000)
    with pytest.raises(LedgerError, match="--fresh"):
        check_ledger_file(path)


def test_the_copy_is_a_whole_database_while_the_ledger_is_written(path: Path, fill: Fill) -> None:
    ledger = fill(3)
    copy = LedgerBackup(path, pytest.fail)
    copy.save()
    number = ledger.start(lambda trial: {"x": trial.suggest_float("x", 0, 1)}).number
    copy.save()  # does nothing so soon after the last copy
    assert _trials(backup_path(path)) == 3
    copy.save(now=True)
    assert _trials(backup_path(path)) == 4
    ledger.finish(number, "failed", reason="crashed")


def test_a_failed_copy_is_reported_once_and_keeps_the_older_one(path: Path, fill: Fill) -> None:
    fill(1)
    reported: list[str] = []
    copy = LedgerBackup(path, reported.append)
    copy.save()
    before = backup_path(path).read_bytes()
    path.write_bytes(b"no database" * 1000)
    copy.save(now=True)
    copy.save(now=True)
    assert len(reported) == 1
    assert "the search goes on" in reported[0]
    assert backup_path(path).read_bytes() == before


def _trials(path: Path) -> int:
    with sqlite3.connect(path) as database:
        return int(database.execute("SELECT count(*) FROM trials").fetchone()[0])
