"""Splits follow from the encoded images: every size has the same ones. Tasks of earlier versions keep theirs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainables.data.build_task import build_task
from trainables.data.inputs.options import DataOptions, task_name
from trainables.data.node_copy import local_copy
from trainables.data.task import Task, open_task, task_digest
from trainables.modalities.image.datasets import open_source, prepare
from trainables.modalities.image.decoding import decode_all

Draw = Callable[[int], Image.Image]
Encode = Callable[..., bytes]
Fill = Callable[[Path, Mapping[str, int]], Path]

SIZES = ((6, 6), (11, 9), (24, 24))
KINDS = ("png", "jpeg")


def folder_of(kind: str, root: Path, encode: Encode, count: int = 40) -> Path:
    """Write pictures of two classes as files of a ``kind``."""
    for number in range(count):
        folder = root / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03}.{kind}").write_bytes(encode(number, kind))
    return root


def parquet_of(kind: str, file: Path, encode: Encode, count: int = 40) -> Path:
    """Write the same pictures as a table."""
    names = [("cat", "dog")[number % 2] for number in range(count)]
    pq.write_table(pa.table({"image": [encode(n, kind) for n in range(count)], "label": names}), file)
    return file


def prepared(data: Path | str, directory: Path, size: tuple[int, int] = SIZES[0], **options: Any) -> Task:
    return prepare(str(data), image_size=size, directory=directory, options=DataOptions(**options))


def earlier(data: Path | str, directory: Path, size: tuple[int, int] = SIZES[0], **options: Any) -> Task:
    """Prepare a task as earlier versions did: split by its pixels, with a request that names no rule."""
    directory.mkdir(parents=True)
    chosen = DataOptions(**options)
    source = open_source(str(data), directory=directory, options=chosen)
    request = {
        "format": 1,
        "place": source.place,
        "fingerprint": source.fingerprint(),
        "image_size": list(size),
        "options": chosen.as_json(),
    }
    name = task_name(str(data))
    build_task(name, source, size, chosen, request, directory, decode_all, by_pixels=True)
    return open_task(directory)


def members(task: Task) -> dict[str, list[str]]:
    """The ids of each split, in the order of the task."""
    return {name: list(task.split(name).ids) for name in task.counts}


# ---------------------------------------------------------------- the same images at every size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("write", "name"), [(folder_of, "in"), (parquet_of, "in.parquet")])
def test_all_sizes_share_their_images_and_their_order(
    write: Callable[..., Path], name: str, kind: str, encode: Encode, tmp_path: Path
) -> None:
    data = write(kind, tmp_path / name, encode)
    tasks = [prepared(data, tmp_path / f"storage {size}" / "out", size) for size in SIZES]
    assert all(members(task) == members(tasks[0]) for task in tasks)
    assert tasks[0].counts == {"train": 24, "validation": 8, "test": 8}
    assert len({task.digest for task in tasks}) == len(SIZES)


def test_a_folder_and_a_table_of_the_same_files_are_one_task(encode: Encode, tmp_path: Path) -> None:
    one = prepared(folder_of("jpeg", tmp_path / "in", encode), tmp_path / "1")
    other = prepared(parquet_of("jpeg", tmp_path / "in.parquet", encode), tmp_path / "2")
    assert one.digest == other.digest


@pytest.mark.parametrize("kind", KINDS)
def test_new_names_change_no_split(kind: str, encode: Encode, tmp_path: Path) -> None:
    root = folder_of(kind, tmp_path / "in", encode)
    first = prepared(root, tmp_path / "1")
    renamed: dict[str, str] = {}
    for number, file in enumerate(sorted(root.rglob(f"*.{kind}"), reverse=True)):
        new = file.with_name(f"ü {number}")
        renamed[str(file.relative_to(root))] = str(new.relative_to(root))
        file.rename(new)
    second = prepared(root, tmp_path / "2", SIZES[1])
    assert members(second) == {name: [renamed[i] for i in ids] for name, ids in members(first).items()}


def test_images_that_look_alike_at_a_small_size_may_differ_in_their_splits(tmp_path: Path) -> None:
    """At one pixel all images are equal; a split by pixels could not tell them apart."""
    rng = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "in" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 8, 3), 100, np.uint8)
        pixels[rng.integers(8), rng.integers(8)] = rng.integers(101)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    one, large = (prepared(tmp_path / "in", tmp_path / str(size), size) for size in ((1, 1), (8, 8)))
    assert members(one) == members(large)


def test_files_with_the_same_pixels_but_other_bytes_are_reported_as_leaks(draw: Draw, tmp_path: Path) -> None:
    for number in range(60):
        folder = tmp_path / "in" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        # Every picture twice: the levels of compression give other bytes.
        for level in (0, 9):
            draw(number).save(folder / f"{number}-{level}.png", compress_level=level)
    task = prepared(tmp_path / "in", tmp_path / "out")
    trained = {name.rpartition("-")[0] for name in task.split("train").ids}
    leaked = [name for name in task.split("test").ids if name.rpartition("-")[0] in trained]
    assert leaked
    assert any(
        note == f"{len(leaked):,} images of test are in train, too, pixel for pixel" for note in task.notes
    )


def test_copies_of_a_file_stay_in_one_split(encode: Encode, tmp_path: Path) -> None:
    root = folder_of("jpeg", tmp_path / "in", encode)
    for file in list(root.rglob("*.jpeg")):
        shutil.copy(file, file.with_name(f"copy of {file.name}"))
    task = prepared(root, tmp_path / "out")
    assert not any("pixel for pixel" in note for note in task.notes)


def test_unlabelled_targets_share_their_images_at_every_size(fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"": 16, "cat": 6, "dog": 6})
    asked = {"unlabelled": True, "classes": ("cat", "dog", "emu")}
    one, other = (prepared(root, tmp_path / str(size) / "out", size, **asked) for size in SIZES[:2])
    assert members(one) == members(other)


def test_a_copy_on_a_node_is_verified_by_the_digest(encode: Encode, tmp_path: Path) -> None:
    task = prepared(folder_of("jpeg", tmp_path / "in", encode), tmp_path / "out")
    assert task_digest(task) == task.digest
    assert open_task(local_copy(task.directory, tmp_path / "cache")).digest == task.digest


# ---------------------------------------------------------------- digits


def test_digits_keep_the_splits_and_the_order_of_earlier_versions(tmp_path: Path) -> None:
    assert prepared("digits", tmp_path / "new", (32, 32)).digest == (
        earlier("digits", tmp_path / "old", (32, 32)).digest
    )


def test_digits_have_one_order_at_every_size(tmp_path: Path) -> None:
    one, other = (prepared("digits", tmp_path / str(size) / "out", size) for size in ((8, 8), (32, 32)))
    assert members(one) == members(other)


# ---------------------------------------------------------------- tasks of earlier versions


def test_the_split_by_pixels_was_another_one(encode: Encode, tmp_path: Path) -> None:
    root = folder_of("png", tmp_path / "in", encode)
    tasks = [earlier(root, tmp_path / str(size) / "out", size) for size in SIZES[:2]]
    tasks.append(prepared(root, tmp_path / "new"))
    tested = {tuple(members(task)["test"]) for task in tasks}
    assert len(tested) == 3


def test_a_task_of_an_earlier_version_is_reused(encode: Encode, tmp_path: Path) -> None:
    root = folder_of("png", tmp_path / "in", encode)
    old = earlier(root, tmp_path / "data" / "one")
    before = (old.directory / "task.json").read_bytes()
    assert prepared(root, old.directory) == old
    assert (old.directory / "task.json").read_bytes() == before


def test_another_size_follows_the_task_of_an_earlier_version(encode: Encode, tmp_path: Path) -> None:
    root = folder_of("png", tmp_path / "in", encode)
    old = earlier(root, tmp_path / "data" / "one")
    new = prepared(root, tmp_path / "data" / "two", SIZES[1])
    assert members(new) == members(old)
    # It keeps them when the task that it followed is gone, because a search may already use them.
    shutil.rmtree(old.directory)
    assert prepared(root, new.directory, SIZES[1]) == new


def test_of_two_earlier_sizes_the_older_one_is_followed(encode: Encode, tmp_path: Path) -> None:
    root = folder_of("png", tmp_path / "in", encode)
    first = earlier(root, tmp_path / "data" / "b", SIZES[0])
    second = earlier(root, tmp_path / "data" / "a", SIZES[1])
    os.utime(second.directory / "task.json", ns=(0, 2**60))
    os.utime(first.directory / "task.json", ns=(0, 2**59))
    assert members(prepared(root, tmp_path / "data" / "c", SIZES[2])) == members(first)


@pytest.mark.parametrize("difference", ["options", "data", "damage", "storage"])
def test_other_earlier_tasks_are_not_followed(difference: str, encode: Encode, tmp_path: Path) -> None:
    root = folder_of("png", tmp_path / "in", encode)
    old = earlier(root, tmp_path / "data" / "one", seed=int(difference == "options"))
    if difference == "data":
        (root / "cat" / "new.png").write_bytes(encode(500))
    elif difference == "damage":
        (old.directory / "test.arrow").write_bytes(b"")
    elif difference == "storage":
        old.directory.rename(tmp_path / "elsewhere")
    expected = members(prepared(root, tmp_path / "alone" / "two"))
    assert members(prepared(root, tmp_path / "data" / "two", SIZES[1])) == expected


def test_files_that_were_copied_keep_the_splits_of_an_earlier_version(encode: Encode, tmp_path: Path) -> None:
    root = folder_of("png", tmp_path / "in", encode)
    old = earlier(root, tmp_path / "data" / "one")
    for file in root.rglob("*.png"):
        os.utime(file, ns=(1, 1))
    again = prepared(root, old.directory)
    assert members(again) == members(old)
    assert again.digest == old.digest
    assert "splits" not in json.loads((old.directory / "task.json").read_text())["request"]


def test_a_damaged_task_of_an_earlier_version_is_prepared_as_it_was(encode: Encode, tmp_path: Path) -> None:
    root = folder_of("png", tmp_path / "in", encode)
    old = earlier(root, tmp_path / "data" / "one")
    (old.directory / "train.arrow").unlink()
    assert prepared(root, old.directory).digest == old.digest


def test_tasks_of_this_version_are_not_followed_but_agree(encode: Encode, tmp_path: Path) -> None:
    root = folder_of("jpeg", tmp_path / "in", encode)
    one = prepared(root, tmp_path / "data" / "one")
    two = prepared(root, tmp_path / "data" / "two", SIZES[1])
    assert members(one) == members(two)
    rules = [json.loads((t.directory / "task.json").read_text())["request"]["splits"] for t in (one, two)]
    assert rules == ["content", "content"]


def test_an_explicit_task_is_followed_whatever_lies_next_to_it(encode: Encode, tmp_path: Path) -> None:
    root = folder_of("png", tmp_path / "in", encode)
    earlier(root, tmp_path / "data" / "one")
    lead = prepared(root, tmp_path / "lead")
    into = tmp_path / "data" / "two"
    task = prepare(str(root), image_size=SIZES[1], directory=into, like=lead)
    assert members(task) == members(lead)
    assert prepare(str(root), image_size=SIZES[1], directory=into, like=lead) == task


def test_unreadable_images_are_left_out_of_a_followed_task(encode: Encode, tmp_path: Path) -> None:
    root = folder_of("png", tmp_path / "in", encode)
    (root / "cat" / "bad.png").write_bytes(b"no image")
    old = earlier(root, tmp_path / "data" / "one", skip_bad_images=True)
    new = prepared(root, tmp_path / "data" / "two", SIZES[1], skip_bad_images=True)
    assert members(new) == members(old)
    assert [image for image, _ in new.skipped] == ["cat/bad.png"]
