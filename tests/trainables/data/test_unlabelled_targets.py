"""Targets without labels for training and validation: layouts, splits, classes, and error messages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from trainables.data.inputs.options import DataOptions
from trainables.data.inputs.source import SPLITS
from trainables.data.task import Task
from trainables.data.unlabelled import HIDDEN_LABEL
from trainables.errors import DataError, UsageError
from trainables.modalities.image.datasets import check_data, prepare

Fill = Callable[[Path, Mapping[str, int]], Path]
Encode = Callable[..., bytes]
Rows = list[tuple[str | None, Any]]

KNOWN = ("cat", "dog", "emu")
"""Classes of a source."""


def prepared(data: Path | str, into: Path, classes: tuple[str, ...] = KNOWN, **options: Any) -> Task:
    asked = DataOptions(unlabelled=True, classes=classes, **options)
    check_data(str(data), directory=into, options=asked)
    return prepare(str(data), image_size=(6, 6), directory=into, options=asked)


def labels(task: Task, split: str) -> list[str]:
    known = (*task.classes, "hidden")
    assert HIDDEN_LABEL == -1
    return [known[label] for label in task.split(split).labels]


def same(one: Task, other: Task) -> bool:
    """Whether nothing of two tasks differs but the names of their images."""
    splits = [(one.split(name), other.split(name)) for name in SPLITS]
    return (one.classes, one.digest) == (other.classes, other.digest) and all(
        np.array_equal(a.images, b.images) and np.array_equal(a.labels, b.labels) for a, b in splits
    )


def table(encode: Encode, rows: Rows, path: Path, **metadata: Any) -> Path:
    """A row for each (split, label); splits of None make a table without that column."""
    columns = {"image": pa.array([encode(n) for n in range(len(rows))], pa.binary())}
    if rows[0][0] is not None:
        columns["split"] = pa.array([split for split, _ in rows])
    columns["label"] = pa.array([label for _, label in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    found = pa.table(columns).replace_schema_metadata(metadata.get("schema"))
    (pq.write_table if path.suffix == ".parquet" else feather.write_feather)(found, path)
    return path


def rows(train: list[Any], validation: list[Any], test: list[Any]) -> Rows:
    given = zip(SPLITS, (train, validation, test), strict=True)
    return [(split, label) for split, own in given for label in own]


@pytest.mark.parametrize("name", ["t.parquet", "t.feather"])
@pytest.mark.parametrize("hidden", [[None] * 6, ["cat", None, " ", "dog", "a lie", "emu"]])
def test_rows_of_train_and_validation_need_no_label(
    name: str, hidden: list[Any], encode: Encode, odd_path: Path, tmp_path: Path
) -> None:
    file = table(encode, rows(hidden, [None] * 3, ["dog", "cat"]), odd_path / name)
    task = prepared(file, tmp_path / "out")
    assert task.counts == {"train": 6, "validation": 3, "test": 2}
    assert task.classes == KNOWN
    assert labels(task, "train") == ["hidden"] * 6
    assert labels(task, "validation") == ["hidden"] * 3
    assert sorted(labels(task, "test")) == ["cat", "dog"]


@pytest.mark.parametrize("kind", ["no column", "null type", "another column"])
def test_a_file_may_have_no_labels_at_all(kind: str, encode: Encode, tmp_path: Path) -> None:
    root = tmp_path / "in"
    table(encode, [(None, "cat"), (None, "emu")], root / "test.parquet")
    file = table(encode, [(None, None)] * 6, root / "train.parquet")
    found = pq.read_table(file)
    assert pa.types.is_null(found.schema.field("label").type)
    changed = {
        "no column": found.drop_columns("label"),
        "null type": found,
        "another column": found.rename_columns(["image", "note"]),
    }
    pq.write_table(changed[kind], file)
    task = prepared(root, tmp_path / "out")
    assert (task.counts["train"], task.counts["validation"], task.counts["test"]) == (5, 1, 2)
    assert set(labels(task, "train")) == {"hidden"}
    assert sorted(labels(task, "test")) == ["cat", "emu"]


def test_hugging_face_writes_minus_one_for_no_label(encode: Encode, tmp_path: Path) -> None:
    features = {"label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}
    schema = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    given = rows([-1, 7, 0, 1], [-1], [0, 1, -1])
    task = prepared(table(encode, given, tmp_path / "t.parquet", schema=schema), tmp_path / "out")
    assert sorted(labels(task, "test")) == ["cat", "dog"]
    assert task.counts == {"train": 4, "validation": 1, "test": 2}
    assert "left out 1 test images without a label" in task.notes


def test_only_the_folders_of_the_test_need_classes(fill: Fill, odd_path: Path, tmp_path: Path) -> None:
    root = fill(odd_path / "target", {"train": 9, "val": 3, "test/cat": 2, "test/dog's": 1})
    task = prepared(root, tmp_path / "out")
    assert task.counts == {"train": 9, "validation": 3, "test": 3}
    assert task.classes == (*KNOWN, "dog's")
    assert sorted(labels(task, "test")) == ["cat", "cat", "dog's"]
    assert set(labels(task, "train") + labels(task, "validation")) == {"hidden"}


def test_class_folders_in_train_are_ignored_and_loose_test_images_left_out(
    fill: Fill, tmp_path: Path
) -> None:
    root = fill(tmp_path / "in", {"train": 3, "train/cat": 2, "train/what/else": 3, "test/emu": 2, "test": 1})
    task = prepared(root, tmp_path / "out")
    assert task.counts == {"train": 6, "validation": 2, "test": 2}
    assert task.classes == KNOWN
    assert any("left out 1 images outside any class folder" in note for note in task.notes)


def moved(root: Path, change: Callable[[Path], str | None]) -> None:
    """Put training and validation images into other folders."""
    for split in ("train", "validation"):
        for number, image in enumerate(sorted((root / split).rglob("*.png"))):
            folder = root / split / (change(image) or "")
            folder.mkdir(parents=True, exist_ok=True)
            image.rename(folder / f"{number}.png")


@pytest.mark.parametrize("change", [lambda i: None, lambda i: "cat", lambda i: f"class {len(i.name)}/deeper"])
def test_labels_in_split_folders_do_not_change_the_task(
    change: Callable[[Path], str | None], fill: Fill, tmp_path: Path
) -> None:
    counts = {f"{split}/{c}": 3 for split in ("train", "validation", "test") for c in ("cat", "dog")}
    root = fill(tmp_path / "in", counts)
    honest = prepared(root, tmp_path / "honest")
    other = Path(shutil.copytree(root, tmp_path / "other"))
    moved(other, change)
    assert same(prepared(other, tmp_path / "out"), honest)


@pytest.mark.parametrize("given", [("train", "validation", "test"), ("train", "train", "test"), (None,) * 3])
def test_labels_in_a_table_do_not_change_the_task(given: Any, encode: Encode, tmp_path: Path) -> None:
    """Where the test is drawn here, labels of images outside it: who has one may matter, which never."""
    truth = ["cat", "dog", "emu"] * 10
    splits = [given[n % 3] for n in range(30)]
    honest = prepared(
        table(encode, list(zip(splits, truth, strict=True)), tmp_path / "a.parquet"), tmp_path / "a"
    )
    tested = {int(name.rpartition("#")[2]) for name in honest.split("test").ids}
    lies = {
        "shuffled": np.random.default_rng(0).permutation(truth).tolist(),
        "another class": ["yak"] * 30,
    }
    for lie, wrong in lies.items():
        told = [truth[n] if n in tested else wrong[n] for n in range(30)]
        file = table(encode, list(zip(splits, told, strict=True)), tmp_path / f"{lie}.parquet")
        assert same(prepared(file, tmp_path / lie), honest)


def test_the_test_is_drawn_from_images_with_labels(encode: Encode, tmp_path: Path) -> None:
    given: Rows = [(None, None if n % 5 else KNOWN[n % 2]) for n in range(50)]
    task = prepared(table(encode, given, tmp_path / "t.parquet"), tmp_path / "out", test_fraction=0.1)
    assert task.counts == {"train": 35, "validation": 10, "test": 5}
    more = prepared(tmp_path / "t.parquet", tmp_path / "more", test_fraction=0.5)
    assert more.counts == {"train": 30, "validation": 10, "test": 10}
    assert set(labels(more, "test")) == {"cat", "dog"}


def test_loose_images_beside_class_folders_are_those_without_a_label(fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"": 16, "cat": 2, "dog": 2})
    task = prepared(root, tmp_path / "out")
    assert task.counts == {"train": 12, "validation": 4, "test": 4}
    assert sorted(labels(task, "test")) == ["cat", "cat", "dog", "dog"]


def test_identical_images_stay_in_one_split_if_there_are_others(fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"cat": 6, "dog": 6})
    for n in range(5):
        shutil.copy(root / "cat" / "000.png", root / "dog" / f"copy {n}.png")
    for seed in range(4):
        task = prepared(root, tmp_path / f"{seed}", seed=seed)
        assert not any("pixel for pixel" in note for note in task.notes)
        assert min(task.counts.values()) >= 1


def test_the_same_folder_with_labels_is_another_task(fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"cat": 20, "dog": 20})
    hidden = prepared(root, tmp_path / "out")
    assert prepared(root, tmp_path / "out") == hidden
    plain = prepare(str(root), image_size=(6, 6), directory=tmp_path / "out")
    assert set(plain.split("train").labels) == {0, 1}
    assert prepared(root, tmp_path / "out", classes=("cat",)).classes == ("cat", "dog")


def test_digits_without_labels(tmp_path: Path) -> None:
    task = prepared("digits", tmp_path / "out", classes=tuple("98"))
    assert task.classes == tuple("9801234567")
    assert set(labels(task, "train") + labels(task, "validation")) == {"hidden"}
    assert set(labels(task, "test")) == set("0123456789")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            rows(["cat"] * 4, ["dog"], [None, None]),
            r"none of 2 images for the test has a label.*--unlabelled-target",
        ),
        ([(None, None)] * 5, r"none of 5 images for the test has a label"),
        (rows([], [None], ["cat", "dog"]), r"holds no train split"),
        (
            [("train", None), ("test", "cat")],
            r"expected at least 2 images to split off validation, received 1",
        ),
        (
            [(None, "cat"), (None, None)],
            r"expected at least 3 images to split off validation and test, received 2",
        ),
    ],
)
def test_invalid_unlabelled_targets_are_refused_with_a_clear_message(
    given: Rows, words: str, encode: Encode, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=words):
        prepared(table(encode, given, tmp_path / "t.parquet"), tmp_path / "out")


def test_a_table_without_a_column_of_labels_is_refused(encode: Encode, tmp_path: Path) -> None:
    file = table(encode, [("train", None), ("test", None)], tmp_path / "t.parquet")
    pq.write_table(pq.read_table(file).drop_columns("label"), file)
    with pytest.raises(DataError, match="no column of labels found; name it with --label-column"):
        prepared(file, tmp_path / "out")
    with pytest.raises(DataError, match=r"no column 'truth' \(label_column\)"):
        prepared(file, tmp_path / "out", label_column="truth")


def test_a_flat_test_folder_is_refused(fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"train": 5, "test": 5})
    with pytest.raises(
        DataError, match=r"holds no class folders; .*only test images of the target need a label"
    ):
        prepared(root, tmp_path / "out")


def test_a_test_of_other_classes_is_refused(fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"train": 5, "test/yak": 2, "test/gnu": 2})
    with pytest.raises(
        UsageError, match=r"no class in common: 'cat', 'dog', 'emu' in the source, 'gnu', 'yak'"
    ):
        prepared(root, tmp_path / "out")


def test_without_the_option_a_missing_label_is_refused_and_the_option_named(
    fill: Fill, encode: Encode, tmp_path: Path
) -> None:
    table(encode, rows(["cat"] * 4, ["dog", None], ["cat", "dog"]), tmp_path / "t.parquet")
    fill(tmp_path / "flat", {"train": 3})
    fill(tmp_path / "loose", {"": 3})
    for name, words in (
        ("t.parquet", "1 of 8 rows have no label"),
        ("flat", "holds no class folders"),
        ("loose", "holds 3 images but no class folders"),
    ):
        with pytest.raises(DataError, match=rf"{words}.*--unlabelled-target"):
            prepare(str(tmp_path / name), image_size=(6, 6), directory=tmp_path / "out")
