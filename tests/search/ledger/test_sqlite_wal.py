"""Test the write-ahead log of a ledger's SQLite file: after a kill, and on which disks it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from search.ledger.backup import check_ledger_file
from search.ledger.ledger import Ledger, sqlite_url
from search.ledger.sqlite_wal import on_local_disk
from trainables.errors import LedgerError

KILLED = """
import os, signal, sys
from pathlib import Path
from search.ledger.ledger import Ledger, sqlite_url
from search.ledger.backup import LedgerBackup
from search.config.space import core_space
file = Path(sys.argv[1])
ledger = Ledger(sqlite_url(file), "a search", direction="maximize", metric="val_accuracy",
                method="finetune", sampler="random", seed=3)
with ledger.wal_mode():
    for _ in range(3):
        ledger.start(core_space(4).suggest)
    LedgerBackup(file, print).save(now=True)
    ledger.start(core_space(4).suggest)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A ledger whose driver was killed in the middle of its trials."""
    folder = tmp_path / "a b ü 字 'q'"
    folder.mkdir()
    file = folder / "ledger.db"
    assert subprocess.run([sys.executable, "-c", KILLED, str(file)]).returncode == -9
    assert (folder / "ledger.db-wal").exists()
    return file


def trials(file: Path) -> int:
    settings = {"metric": "val_accuracy", "method": "finetune", "sampler": "random"}
    return len(
        Ledger(sqlite_url(file), "a search", direction="maximize", seed=3, create=False, **settings).trials
    )


def test_the_log_of_a_killed_driver_is_applied(killed: Path) -> None:
    check_ledger_file(killed)
    assert trials(killed) == 4


def test_the_commands_that_restore_a_copy_remove_the_log(killed: Path) -> None:
    killed.write_bytes(b"no database " * 1000)
    with pytest.raises(LedgerError) as refused:
        check_ledger_file(killed)
    commands = [line for line in str(refused.value).splitlines() if line.startswith("  ")]
    subprocess.run("\n".join(commands), shell=True, check=True)
    check_ledger_file(killed)
    assert trials(killed) == 3


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("/data/ledger.db", True),
        ("/data/a share/deep/ledger.db", False),
        ("/data/a share of mine/ledger.db", True),
        ("/mnt/lustre/ledger.db", False),
        ("/elsewhere/ledger.db", True),
    ],
)
def test_network_file_systems_are_not_local(tmp_path: Path, path: str, local: bool) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/vda / ext4 rw 0 0\n"
        "/dev/vdb /data xfs rw 0 0\n"
        "host:/share /data/a\\040share nfs4 rw 0 0\n"
        "host@tcp:/x /mnt/lustre lustre rw 0 0\n"
    )
    assert on_local_disk(Path(path), mounts) is local


def test_without_a_table_of_mounts_no_disk_is_local(tmp_path: Path) -> None:
    assert not on_local_disk(tmp_path, tmp_path / "nothing")
