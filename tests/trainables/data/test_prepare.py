"""Preparing a task: built-in digits, files on disk, repetition, killed and concurrent processes, a full disk."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits

from trainables.data.build_task import build_task
from trainables.data.inputs.options import DataOptions, task_name
from trainables.data.inputs.source import UNSPLIT, Encoded, Listing
from trainables.data.task import Task, open_task
from trainables.errors import DataError, UsageError
from trainables.modalities.image.datasets import prepare
from trainables.modalities.image.decoding import decode_all

Fill = Callable[[Path, Mapping[str, int]], Path]

FILES = ["task.json", "test.arrow", "train.arrow", "validation.arrow"]


@pytest.fixture
def pets(fill: Fill, odd_path: Path) -> Path:
    return fill(odd_path / "pets", {"cat": 40, "dog": 40})


def prepared(data: Path | str, directory: Path, size: tuple[int, int] = (6, 6), **options: object) -> Task:
    return prepare(str(data), image_size=size, directory=directory, options=DataOptions(**options))  # type: ignore[arg-type]


def visible(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith(".lock"))


class Counted:
    """A progress callback that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))


# ---------------------------------------------------------------- digits


def test_digits(tmp_path: Path) -> None:
    task = prepare("digits", image_size=(32, 32), directory=tmp_path)
    assert (task.name, task.classes, task.image_size) == ("digits", tuple("0123456789"), (32, 32))
    assert task.counts == {"train": 100, "validation": 200, "test": 1497}
    assert task.notes == ()
    data = load_digits()
    seen: list[int] = []
    for name, per_class in (("train", 10), ("validation", 20)):
        assert np.bincount(task.split(name).labels).tolist() == [per_class] * 10
    for name in task.counts:
        split = task.split(name)
        rows = [int(image.removeprefix("digits#")) for image in split.ids]
        np.testing.assert_array_equal(split.labels, data.target[rows])
        small = split.images.astype(float).mean(axis=3).reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
        assert np.corrcoef(small.ravel(), data.images[rows].ravel())[0, 1] > 0.95
        seen += rows
    assert sorted(seen) == list(range(1797))


def test_the_split_of_digits_never_changes(tmp_path: Path) -> None:
    one = prepared("digits", tmp_path / "1", (8, 8), seed=0, test_fraction=0.3)
    other = prepared("digits", tmp_path / "2", (8, 8), seed=7)
    assert one.digest == other.digest
    assert sorted(int(image[7:]) for image in one.split("train").ids)[:5] == [36, 72, 89, 125, 152]


# ---------------------------------------------------------------- what is on disk


def test_splits_are_mapped_and_read_only(pets: Path, tmp_path: Path) -> None:
    task = prepared(pets, tmp_path, (10, 7))
    split = task.split("train")
    assert split.images.shape == (48, 10, 7, 3)
    assert split.images.dtype == np.uint8
    assert split.labels.dtype == np.int64
    assert split.images.flags.c_contiguous
    assert not split.images.flags.owndata
    assert len(split) == len(split.ids) == 48
    assert split.ids[0] == split.ids[:2][0]
    with pytest.raises(ValueError, match="read-only"):
        split.images[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        split.labels[0] = 0


def test_any_arrow_reader_understands_the_files(pets: Path, tmp_path: Path) -> None:
    task = prepared(pets, tmp_path)
    with pa.memory_map(str(tmp_path / "test.arrow")) as file:
        batch = pa.ipc.open_file(file).read_all().combine_chunks()
    assert batch.column_names == ["image", "label", "id"]
    np.testing.assert_array_equal(
        batch["image"].combine_chunks().to_numpy_ndarray(), task.split("test").images
    )


def test_open_task_gives_the_same(pets: Path, tmp_path: Path) -> None:
    task = prepared(pets, tmp_path)
    assert open_task(tmp_path) == task
    assert pickle.loads(pickle.dumps(task)) == task  # noqa: S301
    assert len(task.digest) == 64


def test_an_unknown_split(pets: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="split: expected one of train, validation, test, received 'val'"):
        prepared(pets, tmp_path).split("val")


def test_progress_counts_every_image(pets: Path, tmp_path: Path) -> None:
    progress = Counted()
    prepare(str(pets), image_size=(6, 6), directory=tmp_path, progress=progress)
    assert progress.calls[-1] == (80, 80)
    assert [done for done, _ in progress.calls] == sorted({done for done, _ in progress.calls})


# ---------------------------------------------------------------- once only


def test_an_unchanged_input_is_not_decoded_again(pets: Path, tmp_path: Path) -> None:
    first = prepared(pets, tmp_path)
    progress = Counted()
    again = prepare(str(pets), image_size=(6, 6), directory=tmp_path, progress=progress)
    assert again == first
    assert progress.calls == []


def test_a_relative_path_is_the_same_input(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(pets, tmp_path / "out")
    monkeypatch.chdir(pets.parent)
    progress = Counted()
    prepare("pets", image_size=(6, 6), directory=tmp_path / "out", progress=progress)
    assert progress.calls == []


@pytest.mark.parametrize("change", ["touched", "added", "renamed", "size", "options"])
def test_a_changed_input_is_prepared_again(
    change: str, pets: Path, encode: Callable[..., bytes], tmp_path: Path
) -> None:
    first = prepared(pets, tmp_path)
    file = pets / "cat" / "000.png"
    if change == "touched":
        file.write_bytes(encode(500))
    elif change == "added":
        (pets / "cat" / "new.png").write_bytes(encode(501))
    elif change == "renamed":
        file.rename(pets / "dog" / "moved.png")
    size = (5, 5) if change == "size" else (6, 6)
    again = prepared(pets, tmp_path, size, seed=int(change == "options"))
    assert again.digest != first.digest
    assert open_task(tmp_path) == again
    assert visible(tmp_path) == FILES


def test_a_new_name_for_the_same_image_keeps_the_digest(pets: Path, tmp_path: Path) -> None:
    first = prepared(pets, tmp_path)
    (pets / "cat" / "000.png").rename(pets / "cat" / "zzz.png")
    again = prepared(pets, tmp_path)
    assert again.digest == first.digest
    assert "cat/zzz.png" in [image for name in again.counts for image in again.split(name).ids]


def test_a_reader_keeps_the_old_arrays_while_they_are_replaced(pets: Path, tmp_path: Path) -> None:
    split = prepared(pets, tmp_path).split("train")
    before = split.images.copy()
    prepared(pets, tmp_path, (9, 9))
    np.testing.assert_array_equal(split.images, before)


# ---------------------------------------------------------------- damage, kills, races


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "gone", "emptied"])
def test_a_damaged_task_is_reported_and_prepared_again(
    name: str, damage: str, pets: Path, tmp_path: Path
) -> None:
    task = prepared(pets, tmp_path)
    path = tmp_path / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:40] if damage == "cut" else b"")
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        open_task(tmp_path)
    assert prepared(pets, tmp_path) == task
    np.testing.assert_array_equal(np.bincount(task.split("test").labels), [8, 8])


@pytest.mark.parametrize("keep_time", [True, False])
@pytest.mark.parametrize("name", ["train.arrow", "test.arrow"])
def test_changed_pixels_are_detected_and_prepared_again(
    name: str, keep_time: bool, pets: Path, tmp_path: Path
) -> None:
    task = prepared(pets, tmp_path)
    path = tmp_path / name
    content, before = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert prepared(pets, tmp_path) == task
    assert path.read_bytes() != content


def test_of_large_data_only_files_with_another_time_are_hashed_again(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.data.task.ALWAYS_HASHED_BYTES", 0)
    prepared(pets, tmp_path)
    path = tmp_path / "train.arrow"
    whole, before = path.read_bytes(), path.stat()
    damaged = bytes([*whole[:-9], whole[-9] ^ 1, *whole[-8:]])
    path.write_bytes(damaged)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    prepared(pets, tmp_path)
    assert path.read_bytes() == damaged
    os.utime(path)
    prepared(pets, tmp_path)
    assert path.read_bytes() == whole


def test_a_split_that_is_no_arrow_file(pets: Path, tmp_path: Path) -> None:
    task = prepared(pets, tmp_path)
    path = tmp_path / "train.arrow"
    path.write_bytes(b"?" * path.stat().st_size)
    with pytest.raises(DataError, match=r"train\.arrow is damaged.* Delete .* and run the search again"):
        task.split("train")


def test_a_task_of_a_later_version(pets: Path, tmp_path: Path) -> None:
    task = prepared(pets, tmp_path)
    facts = json.loads((tmp_path / "task.json").read_text())
    (tmp_path / "task.json").write_text(json.dumps({**facts, "format": 99}))
    with pytest.raises(DataError, match="expected format 1, received 99"):
        open_task(tmp_path)
    assert prepared(pets, tmp_path) == task


def test_a_folder_without_a_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no prepared data: .*task\.json is missing"):
        open_task(tmp_path)


def test_an_interrupt_leaves_no_partial_task(pets: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(str(pets), image_size=(6, 6), directory=tmp_path, progress=interrupt)
    assert visible(tmp_path) == []


SCRIPT = """
import os, signal, sys
from pathlib import Path
from trainables.modalities.image.datasets import prepare

def progress(done, total):
    if {when} and done >= 32:
        os.kill(os.getpid(), signal.SIGKILL)

task = prepare(sys.argv[1], image_size=(6, 6), directory=Path(sys.argv[2]), progress=progress)
print(task.digest)
"""


def start(data: Path, directory: Path, when: str = "False", limit: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", limit + SCRIPT.format(when=when), str(data), str(directory)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_preparation_can_be_repeated(pets: Path, tmp_path: Path) -> None:
    killed = start(pets, tmp_path, when="True")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert visible(tmp_path) == [".partial"]
    with pytest.raises(DataError, match="no prepared data"):
        open_task(tmp_path)
    task = prepared(pets, tmp_path)
    assert visible(tmp_path) == FILES
    assert sum(task.counts.values()) == 80


def test_concurrent_processes_prepare_once(pets: Path, tmp_path: Path) -> None:
    both = [start(pets, tmp_path) for _ in range(2)]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert visible(tmp_path) == FILES


def test_concurrent_threads_decode_once(pets: Path, tmp_path: Path) -> None:
    progress = Counted()

    def work(_: int) -> Task:
        return prepare(str(pets), image_size=(6, 6), directory=tmp_path, progress=progress)

    with ThreadPoolExecutor(4) as pool:
        tasks = list(pool.map(work, range(4)))
    assert all(task == tasks[0] for task in tasks)
    assert progress.calls.count((80, 80)) == 1


def test_disk_full_while_writing(pets: Path, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
    process = start(pets, tmp_path, limit=limit)
    _, errors = process.communicate()
    assert "DataError: can't write prepared images to" in errors
    assert "File too large" in errors
    assert visible(tmp_path) == []


def test_a_disk_that_is_too_small_is_refused_before_decoding(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = os.statvfs(tmp_path)
    size = int((usage.f_bavail * usage.f_frsize / 80 / 2 / 3) ** 0.5) + 100
    if size > 4096:
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
        size = 6
    with pytest.raises(DataError, match=r"takes .* GB of disk, but .* GB free. .*--storage"):
        prepared(pets, tmp_path, (size, size))


def test_a_directory_that_is_a_file(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(DataError, match=r"can't write prepared images to .*out"):
        prepared(pets, tmp_path / "out")


class Shrinking:
    """A source that yields fewer images than it listed, as a file does that is written meanwhile."""

    place = "t.parquet"

    def fingerprint(self) -> str:
        return "t"

    def listing(self) -> Listing:
        labels = np.arange(8, dtype=np.int64) % 2
        return Listing([str(row) for row in range(8)], labels, np.full(8, UNSPLIT, dtype=np.int8), ("a", "b"))

    def images(self) -> Iterator[Encoded | None]:
        yield from [None] * 7

    def keys(self) -> None:
        return None


def test_input_that_changes_after_it_was_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.parquet changed while it was read: expected 8 images, found 7"):
        build_task("t", Shrinking(), (6, 6), DataOptions(), {}, tmp_path, decode_all)


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("nowhere/at all", r"expected digits, a folder .*, received 'nowhere/at all', which doesn't exist"),
        ("https://example.org/cats.parquet", r"on this machine, received the address .* Download it first"),
        ("s3://bucket/cats", r"Download it first"),
        ("bad\0name", r"expected digits"),
        ("~nobody-of-this-name/cats", r"expected digits"),
    ],
)
def test_missing_inputs_are_refused(data: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        prepared(data, tmp_path)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "cats.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"received the file .*cats\.zip'. Unpack an archive"):
        prepared(tmp_path / "cats.zip", tmp_path / "out")


@pytest.mark.parametrize("data", ["", "  "])
def test_empty_data(data: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="data: expected digits"):
        prepared(data, tmp_path)


@pytest.mark.parametrize("data", [None, 3, ["digits"]])
def test_data_of_a_wrong_type(data: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="data: expected digits"):
        prepare(data, image_size=(6, 6), directory=tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(0, 8), (8, -1), (8,), (8, 8, 3), (8.5, 8), ("a", "b"), 8, (5000, 8), None])
def test_impossible_sizes(size: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="image_size: expected"):
        prepare("digits", image_size=size, directory=tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("digits", "digits"),
        ("/no such/Zwölf Tiere 字.parquet", "Zwölf Tiere 字"),
        ("/a/cats: big/small.v2.parquet", "small.v2"),
        ("/a/..hidden..", "hidden"),
        ("/", "data"),
        ("/a/???", "data"),
        ("/a/" + "x" * 300, "x" * 80),
    ],
)
def test_names_of_tasks(data: str, name: str) -> None:
    assert task_name(data) == name
