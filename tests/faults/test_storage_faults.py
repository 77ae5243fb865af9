"""Test that a full or read-only storage gives a clear error and leaves an intact ledger."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disks import FailingDisk, empty, fill, small_disk
from search_command import SearchCommand, epochs, expect_delivered, expect_whole

from search.ledger.backup import LedgerBackup, check_ledger_file
from search.ledger.ledger import Ledger, sqlite_url
from search.ledger.workspace import Workspace
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import LedgerError, SearchError

OpenLedger = Callable[..., Ledger]


@pytest.fixture
def failing_disk(tmp_path: Path) -> Iterator[FailingDisk]:
    disk = FailingDisk(tmp_path)
    yield disk
    disk.close()


def write_trials(ledger: Ledger, count: int) -> None:
    for _ in range(count):
        number = ledger.start(lambda trial: {"x": trial.suggest_float("x", 0, 1)}).number
        for epoch in range(1, 4):
            ledger.report(number, EpochMetrics(epoch, 0.5, 1.0, 1.0, 0.1))
        ledger.finish(number, "complete")


def test_a_full_disk_is_an_error_and_the_ledger_continues_when_there_is_room(
    tmp_path: Path, open_ledger: OpenLedger
) -> None:
    with small_disk(tmp_path / "disk ü", 4) as disk:
        file, told = disk / "ledger.db", list[str]()
        ledger, copy = open_ledger(sqlite_url(file)), LedgerBackup(file, told.append)
        with ledger.wal_mode():
            write_trials(ledger, 3)
            copy.save()
            fill(disk)
            with pytest.raises(LedgerError, match=r"ledger\.db can't be read or written: .*full") as error:
                write_trials(ledger, 100)
            copy.save(now=True)
        assert str(file) in str(error.value)
        assert len(told) == 1
        check_ledger_file(file)
        empty(disk)
        again = open_ledger(sqlite_url(file))
        ended = [t for t in again.trials if t.finished]
        assert 3 <= len(ended) <= len(again.trials) <= len(ended) + 1
        assert all([e.epoch for e in t.epochs] == [1, 2, 3] for t in ended)
        write_trials(again, 2)


def test_a_disk_that_becomes_read_only_is_an_error_and_the_ledger_is_intact(
    failing_disk: FailingDisk, open_ledger: OpenLedger
) -> None:
    workspace = Workspace(failing_disk.folder, "s")
    workspace.create()
    file = workspace.ledger
    ledger = open_ledger(sqlite_url(file))
    with ledger.wal_mode():
        write_trials(ledger, 3)
        os.sync()
        failing_disk.fail()
        with pytest.raises(LedgerError, match=r"ledger\.db can't be read or written: .*(readonly|I/O error)"):
            write_trials(ledger, 100)
    with (
        pytest.raises(SearchError, match="can't be written any more: Read-only file system"),
        workspace.explain_unwritable(),
    ):
        raise RuntimeError("what a library says when it can't write")
    del ledger  # its open connection would prevent unmounting the disk
    gc.collect()
    failing_disk.repair()
    check_ledger_file(file)
    again = open_ledger(sqlite_url(file))
    assert [t.state for t in again.trials[:3]] == ["complete"] * 3
    write_trials(again, 1)


def test_other_errors_are_not_blamed_on_a_writable_storage(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "s")
    workspace.create()
    with pytest.raises(ZeroDivisionError), workspace.explain_unwritable():
        _ = 1 / 0
    with pytest.raises(LedgerError, match="torn"), workspace.explain_unwritable():
        raise LedgerError("torn")
    assert list(workspace.directory.iterdir()) == []


def test_a_full_disk_is_named_though_there_is_some_room_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk ü", 4) as disk:
        workspace = Workspace(disk, "s")
        workspace.create()
        with (
            pytest.raises(SearchError, match=r"disk ü' can't be written any more: No space"),
            workspace.explain_unwritable(),
        ):
            raise RuntimeError("what a library says") from overfull(disk)
        assert list(workspace.directory.iterdir()) == []
        elsewhere = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "file"))
        with pytest.raises(OSError, match="file"), workspace.explain_unwritable():
            raise elsewhere


def overfull(disk: Path) -> OSError:
    """The error of a write that found no room, although there is room again."""
    fill(disk)
    try:
        with (disk / "one more").open("wb", buffering=0) as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        return error
    finally:
        empty(disk)
        (disk / "one more").unlink()
    raise AssertionError("the disk was not full")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_storage_that_fills_up_during_a_search(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 120) as disk:
        long = ("--trials", "4", "--epochs", "10", "--scheduler", "none", "--sampler", "random")
        search = SearchCommand(tmp_path / "work", long, storage=disk / "runs")
        try:
            process = search.start()
            search.wait_for(lambda record: epochs(record) >= 5)
            fill(disk)
            assert process.wait(240) == 1, search.log()
            words = search.log()
            assert "can't be" in words
            assert "written" in words
            assert str(disk / "runs") in words
            assert "Traceback" not in words
            check_ledger_file(disk / "runs" / "digits" / "ledger.db")
            fill(disk)  # fill the space that the command has freed
            refused = search.start()
            assert refused.wait(120) == 1
            assert "storage: expected a folder that can be written" in search.log()
            empty(disk)
            search.run()
            expect_delivered(expect_whole(search.record(), 4))
        finally:
            search.kill()
