"""A node's own copy of a task is made once, verified, replaced if damaged, and removed if the disk is full."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainables.data import node_copy
from trainables.data.node_copy import COPIES_FOLDER, local_copy
from trainables.data.task import open_task, task_digest
from trainables.errors import DataError
from trainables.modalities.image.datasets import prepare


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder on another file system than the node's cache."""
    folder = Path(tempfile.mkdtemp(prefix="shared ü 字 ", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache ü"


def digits(shared: Path, side: int = 8) -> Path:
    return prepare("digits", image_size=(side, side), directory=shared / f"digits {side}").directory


def test_a_copy_equals_the_task_and_is_made_once(shared: Path, cache: Path) -> None:
    task = digits(shared)
    mine = local_copy(task, cache)
    assert mine.parent == cache / COPIES_FOLDER
    assert task_digest(open_task(mine)) == open_task(task).digest
    assert open_task(mine).split("test").ids[:3] == open_task(task).split("test").ids[:3]
    before = (mine / "train.arrow").stat()
    assert local_copy(task, cache) == mine
    assert (mine / "train.arrow").stat() == before
    assert [p.name for p in mine.parent.iterdir() if p.is_dir()] == [mine.name]


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "unchecked"])
def test_a_damaged_copy_is_fetched_again(shared: Path, cache: Path, damage: str) -> None:
    task = digits(shared)
    mine = local_copy(task, cache)
    file = mine / "train.arrow"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    if damage == "unchecked":
        (mine / ".checked").unlink()
    assert local_copy(task, cache) == mine
    assert file.read_bytes() == (task / "train.arrow").read_bytes()


def test_the_partial_copy_of_a_killed_process_is_replaced(shared: Path, cache: Path) -> None:
    task = digits(shared)
    mine = local_copy(task, cache)
    mine.rename(mine.with_name(mine.name + ".partial"))
    (mine.with_name(mine.name + ".partial") / "test.arrow").unlink()
    assert task_digest(open_task(local_copy(task, cache))) == open_task(task).digest
    assert len([p for p in mine.parent.iterdir() if p.is_dir()]) == 1


def test_a_damaged_task_is_refused(shared: Path, cache: Path) -> None:
    task = digits(shared)
    content = bytearray((task / "train.arrow").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (task / "train.arrow").write_bytes(content)
    with pytest.raises(DataError, match=r"digits 8 is damaged.*Delete it and run the search again"):
        local_copy(task, cache)
    assert not [p for p in (cache / COPIES_FOLDER).iterdir() if p.is_dir()]


def test_no_copy_is_made_where_it_would_gain_nothing(
    shared: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = digits(tmp_path)
    assert local_copy(here, cache) == here
    task = digits(shared)
    assert local_copy(task, None) == task
    monkeypatch.setattr(node_copy, "MIN_FREE_SHARE", 1.0)  # a disk that is full
    assert local_copy(task, cache) == task
    monkeypatch.undo()
    cache.mkdir(exist_ok=True)
    shutil.rmtree(cache / COPIES_FOLDER)
    (cache / COPIES_FOLDER).write_text("no folder")
    assert local_copy(task, cache) == task


def test_concurrent_processes_copy_a_task_once(shared: Path, cache: Path) -> None:
    task = digits(shared)
    code = (
        "import shutil, sys; from pathlib import Path; from trainables.data import node_copy; copy = shutil.copyfile\n"
        "node_copy.shutil.copyfile = lambda *a: (print('fetched'), copy(*a))\n"
        "print(node_copy.local_copy(Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(task), str(cache)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = [process.communicate(timeout=120)[0].split("\n") for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sum(lines.count("fetched") for lines in said) == 4  # three splits and task.json
    assert len({lines[-2] for lines in said}) == 1


def test_unused_copies_are_removed_least_recently_used_first(
    shared: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_copy, "MAX_UNUSED_COPIES", 1)
    code = "import sys; from pathlib import Path; from trainables.data.node_copy import local_copy\n"
    code += "[print(local_copy(Path(task), Path(sys.argv[1])).name) for task in sys.argv[2:]]"
    tasks = [digits(shared, side) for side in (8, 9, 10, 11)]
    line = [sys.executable, "-c", code, str(cache), *map(str, tasks[:2])]
    old = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout.split("\n")[:2]
    for age, name in enumerate(reversed(old)):
        os.utime(cache / COPIES_FOLDER / name / ".used", (1000 - age, 1000 - age))
    read = local_copy(tasks[2], cache)  # by this process, which lives
    left = {p.name for p in (cache / COPIES_FOLDER).iterdir() if p.is_dir()}
    assert left == {old[1], read.name}
    os.utime(read / ".used", (1, 1))
    newest = local_copy(tasks[3], cache)
    left = {p.name for p in (cache / COPIES_FOLDER).iterdir() if p.is_dir()}
    assert left >= {read.name, newest.name}
