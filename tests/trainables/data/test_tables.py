"""Parquet and Arrow files: kinds of image columns, labels, splits, and error messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from trainables.data.inputs.options import DataOptions
from trainables.data.task import Task
from trainables.errors import DataError
from trainables.modalities.image.datasets import prepare

Encode = Callable[..., bytes]

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ("cat", "dog")


def prepared(data: Path, into: Path, **options: Any) -> Task:
    return prepare(str(data), image_size=(6, 6), directory=into, options=DataOptions(**options))


def hugging_face(names: Sequence[str], label: str = "label") -> dict[bytes, bytes]:
    """Schema metadata as ``datasets`` writes it."""
    features = {"image": {"_type": "Image"}, label: {"names": list(names), "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def images(encode: Encode, rows: range, kind: Any = STRUCT) -> pa.Array:
    values: list[Any] = [encode(row) for row in rows]
    if pa.types.is_struct(kind):
        values = [{"bytes": value, "path": f"{row}.png"} for row, value in zip(rows, values, strict=True)]
    return pa.array(values, kind)


def table(encode: Encode, rows: range = range(20), kind: Any = STRUCT, **columns: Any) -> pa.Table:
    """Rows of pictures, two classes in turn unless ``label`` says otherwise."""
    columns.setdefault("label", [NAMES[row % 2] for row in rows])
    return pa.table({"image": images(encode, rows, kind), **columns})


def save(rows: pa.Table, path: Path) -> Path:
    """As the kind of file that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(rows, path, row_group_size=7)
    elif path.suffix == ".feather":
        feather.write_feather(rows, path)
    else:
        start = pa.ipc.new_stream if path.suffix == ".arrow" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as sink, start(sink, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=6)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow", ".ipc"])
@pytest.mark.parametrize("kind", [STRUCT, pa.binary(), pa.large_binary(), pa.binary_view()], ids=str)
def test_kinds_of_files_and_images(
    suffix: str, kind: Any, encode: Encode, odd_path: Path, tmp_path: Path
) -> None:
    file = save(table(encode, kind=kind), odd_path / f"tiere äöü{suffix}")
    task = prepared(file, tmp_path / "out")
    assert task.name == "tiere äöü"
    assert task.classes == NAMES
    assert task.counts == {"train": 12, "validation": 4, "test": 4}
    split = task.split("train")
    assert all(
        int(image.rpartition("#")[2]) % 2 == label
        for image, label in zip(split.ids, split.labels, strict=True)
    )


def test_same_digest_and_arrays_from_a_folder_and_from_parquet(encode: Encode, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for row in range(20):
        (folder / NAMES[row % 2]).mkdir(parents=True, exist_ok=True)
        (folder / NAMES[row % 2] / f"{row:02}.png").write_bytes(encode(row))
    file = save(
        table(encode, range(19, -1, -1), label=[NAMES[row % 2] for row in range(19, -1, -1)]),
        tmp_path / "t.parquet",
    )
    one, other = prepared(folder, tmp_path / "1"), prepared(file, tmp_path / "2")
    assert one.digest == other.digest
    for name in one.counts:
        np.testing.assert_array_equal(one.split(name).images, other.split(name).images)
        np.testing.assert_array_equal(one.split(name).labels, other.split(name).labels)


@pytest.mark.parametrize("struct", [False, True])
def test_paths_are_relative_to_the_file(struct: bool, encode: Encode, odd_path: Path, tmp_path: Path) -> None:
    (odd_path / "bilder").mkdir()
    for row in range(20):
        (odd_path / "bilder" / f"{row} ü.png").write_bytes(encode(row))
    paths = [f"bilder/{row} ü.png" for row in range(19)] + [str(odd_path / "bilder" / "19 ü.png")]
    column = (
        pa.array([{"bytes": None, "path": path} for path in paths], STRUCT) if struct else pa.array(paths)
    )
    labels = [NAMES[row % 2] for row in range(20)]
    file = save(pa.table({"file_name": column, "label": labels}), odd_path / "labels.parquet")
    task = prepared(file, tmp_path / "out")
    assert sum(task.counts.values()) == 20
    (odd_path / "bilder" / "3 ü.png").write_bytes(encode(333))
    assert prepared(file, tmp_path / "out").digest != task.digest


@pytest.mark.parametrize(
    ("labels", "metadata", "classes"),
    [
        pytest.param(
            [i % 2 for i in range(20)], hugging_face(["dog", "cat"]), ("dog", "cat"), id="named, in order"
        ),
        pytest.param(
            [i % 2 for i in range(20)], hugging_face(["a", "b", "c"]), ("a", "b"), id="one name unused"
        ),
        pytest.param([i % 2 * 8 + 2 for i in range(20)], None, ("2", "10"), id="integers without names"),
        pytest.param([i % 2 - 5 for i in range(20)], None, ("-5", "-4"), id="negative integers"),
        pytest.param([i % 2 * 1.0 for i in range(20)], None, ("0", "1"), id="whole floats"),
        pytest.param([i % 2 == 0 for i in range(20)], None, ("False", "True"), id="booleans"),
        pytest.param(["bä" if i % 2 else "字" for i in range(20)], None, ("bä", "字"), id="strings"),
        pytest.param(
            [i % 2 for i in range(20)], {b"huggingface": b"not json"}, ("0", "1"), id="odd metadata"
        ),
        pytest.param(
            [i % 2 for i in range(20)], {b"huggingface": b'{"info": 3}'}, ("0", "1"), id="other metadata"
        ),
    ],
)
def test_labels(
    labels: list[Any], metadata: Any, classes: tuple[str, ...], encode: Encode, tmp_path: Path
) -> None:
    rows = table(encode, label=labels).replace_schema_metadata(metadata)
    task = prepared(save(rows, tmp_path / "t.parquet"), tmp_path / "out")
    assert task.classes == classes
    assert np.bincount(task.split("train").labels).tolist() == [6, 6]


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_dictionary_encoded_columns(suffix: str, encode: Encode, tmp_path: Path) -> None:
    rows = range(20)
    label = pa.array([NAMES[row % 2] for row in rows]).dictionary_encode()
    split = pa.array(["train"] * 12 + ["val"] * 4 + ["test"] * 4).dictionary_encode()
    file = save(table(encode, label=label, split=split), tmp_path / f"t{suffix}")
    assert prepared(file, tmp_path / "out").counts == {"train": 12, "validation": 4, "test": 4}


def test_files_that_order_the_same_names_differently(encode: Encode, tmp_path: Path) -> None:
    one = table(encode, range(10), label=[i % 2 for i in range(10)]).replace_schema_metadata(
        hugging_face(NAMES)
    )
    other = table(encode, range(10, 20), label=[1 - i % 2 for i in range(10)])
    save(one, tmp_path / "in" / "train.parquet")
    save(other.replace_schema_metadata(hugging_face(NAMES[::-1])), tmp_path / "in" / "test.parquet")
    task = prepared(tmp_path / "in", tmp_path / "out")
    test = task.split("test")
    assert task.classes == NAMES
    assert all(
        int(image.rpartition("#")[2]) % 2 == label for image, label in zip(test.ids, test.labels, strict=True)
    )


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize(
    "words", [("train", "validation", "test"), ("Training", "VAL", "testing"), ("train", "dev", "Test ")]
)
def test_split_column(words: tuple[str, str, str], encode: Encode, tmp_path: Path) -> None:
    split = [words[0]] * 10 + [words[1]] * 6 + [words[2]] * 4
    task = prepared(save(table(encode, split=split), tmp_path / "t.parquet"), tmp_path / "out")
    assert task.counts == {"train": 10, "validation": 6, "test": 4}
    assert sorted(int(image.rpartition("#")[2]) for image in task.split("test").ids) == [16, 17, 18, 19]


@pytest.mark.parametrize(
    "names",
    [
        ("train.parquet", "validation.parquet", "test.parquet"),
        (
            "data/train-00000-of-00001.parquet",
            "data/validation-00000-of-00001.parquet",
            "data/test-00000-of-00001.parquet",
        ),
        ("tiere_train.arrow", "tiere_val.arrow", "tiere_test.arrow"),
        ("train/0000.parquet", "validation/0000.parquet", "test/0000.parquet"),
        (
            "train/data-00000-of-00001.arrow",
            "valid/data-00000-of-00001.arrow",
            "test/data-00000-of-00001.arrow",
        ),
    ],
)
def test_one_file_per_split(names: tuple[str, str, str], encode: Encode, tmp_path: Path) -> None:
    for number, name in enumerate(names):
        save(table(encode, range(number * 10, number * 10 + 10)), tmp_path / "in" / name)
    task = prepared(tmp_path / "in", tmp_path / "out")
    assert task.counts == {"train": 10, "validation": 10, "test": 10}
    assert {image.partition("#")[0] for image in task.split("test").ids} == {names[2]}


def test_several_files_without_splits_are_one_input(encode: Encode, tmp_path: Path) -> None:
    save(table(encode, range(10)), tmp_path / "in" / "part-0.parquet")
    save(table(encode, range(10, 20)), tmp_path / "in" / "part-1.parquet")
    task = prepared(tmp_path / "in", tmp_path / "out")
    assert task.name == "in"
    assert task.counts == {"train": 12, "validation": 4, "test": 4}


def test_files_named_for_splits_go_before_a_column_of_that_name(encode: Encode, tmp_path: Path) -> None:
    for number, name in enumerate(("train", "test")):
        save(
            table(encode, range(number * 10, number * 10 + 10), split=["fold"] * 10),
            tmp_path / "in" / f"{name}.parquet",
        )
    assert prepared(tmp_path / "in", tmp_path / "out").counts == {"train": 8, "validation": 2, "test": 10}


# ---------------------------------------------------------------- columns


@pytest.mark.parametrize(("image", "label"), [("img", "labels"), ("Image", "CLASS"), ("picture", "target")])
def test_columns_found_by_name(image: str, label: str, encode: Encode, tmp_path: Path) -> None:
    rows = table(encode, id=list(range(20))).rename_columns({"image": image, "label": label})
    assert prepared(save(rows, tmp_path / "t.parquet"), tmp_path / "out").classes == NAMES


def test_columns_found_by_type(encode: Encode, tmp_path: Path) -> None:
    rows = (
        table(encode, fine=[i % 2 for i in range(20)])
        .drop_columns("label")
        .rename_columns({"image": "pixels"})
    )
    rows = rows.replace_schema_metadata(hugging_face(NAMES, "fine"))
    assert prepared(save(rows, tmp_path / "t.parquet"), tmp_path / "out").classes == NAMES


def test_columns_named_by_the_user(encode: Encode, tmp_path: Path) -> None:
    part = ["train"] * 10 + ["test"] * 10
    other = pa.array([b"x"] * 20)
    rows = table(encode, image2=other, coarse=["x", "y"] * 10, part=part).rename_columns(
        {"image": "scan", "image2": "image"}
    )
    file = save(rows, tmp_path / "t.parquet")
    task = prepared(file, tmp_path / "out", image_column="scan", label_column="coarse", split_column="part")
    assert task.classes == ("x", "y")
    assert task.counts["test"] == 10


# ---------------------------------------------------------------- bad rows and refusals


def test_rows_without_an_image_are_bad_images(encode: Encode, tmp_path: Path) -> None:
    cells = [{"bytes": encode(row), "path": None} for row in range(20)]
    cells[3] = None  # type: ignore[call-overload]
    cells[4] = {"bytes": None, "path": None}  # type: ignore[dict-item]
    cells[5] = {"bytes": b"", "path": "empty.png"}
    file = save(
        pa.table({"image": pa.array(cells, STRUCT), "label": list(NAMES) * 10}), tmp_path / "t.parquet"
    )
    with pytest.raises(DataError, match=r"3 of 20 images can't be read:\s+t.parquet#3: there is no image"):
        prepared(file, tmp_path / "out")
    task = prepared(file, tmp_path / "out", skip_bad_images=True)
    assert [image for image, _ in task.skipped] == ["t.parquet#3", "t.parquet#4", "t.parquet#5"]
    assert sum(task.counts.values()) == 17


def without_label(encode: Encode) -> pa.Table:
    return table(encode).drop_columns("label")


def without_image(encode: Encode) -> pa.Table:
    return table(encode).drop_columns("image").append_column("number", pa.array(range(20)))


def two_class_labels(encode: Encode) -> pa.Table:
    features = {name: {"names": ["a", "b"], "_type": "ClassLabel"} for name in ("coarse_label", "fine_label")}
    rows = table(encode, coarse_label=[0, 1] * 10, fine_label=[1, 0] * 10).drop_columns("label")
    return rows.replace_schema_metadata(
        {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    )


def null_labels(encode: Encode) -> pa.Table:
    return table(encode, label=[None, *(NAMES * 9), "cat"])


def blank_labels(encode: Encode) -> pa.Table:
    return table(encode, label=[" ", *(NAMES * 9), "cat"])


def unlabelled(encode: Encode) -> pa.Table:
    return table(encode, label=[-1, *([0, 1] * 9), 0]).replace_schema_metadata(hugging_face(NAMES))


def beyond_the_names(encode: Encode) -> pa.Table:
    return table(encode, label=[7, *([0, 1] * 9), 0]).replace_schema_metadata(hugging_face(NAMES))


def fractional_labels(encode: Encode) -> pa.Table:
    return table(encode, label=[0.5, 1.0] * 10)


def many_labels(encode: Encode) -> pa.Table:
    return table(encode, label=[[0, 1]] * 20)


def decoded_images(encode: Encode) -> pa.Table:
    return pa.table({"image": [[0, 1, 2]] * 20, "label": list(NAMES) * 10})


def odd_splits(encode: Encode) -> pa.Table:
    return table(encode, split=["train", "holdout"] * 10)


def null_splits(encode: Encode) -> pa.Table:
    return table(encode, split=[None, *["train"] * 19])


def one_class(encode: Encode) -> pa.Table:
    return table(encode, label=["cat"] * 20)


def no_rows(encode: Encode) -> pa.Table:
    return table(encode).slice(0, 0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (without_label, r"no column of labels found; .*--label-column .* columns are 'image'"),
        (without_image, r"no column of images found; .*--image-column .*'label', 'number'"),
        (two_class_labels, r"several columns may hold the labels: 'coarse_label', 'fine_label'; name one"),
        (null_labels, r"1 of 20 rows have no label \(rows '0'\)"),
        (blank_labels, r"1 of 20 rows have no label"),
        (unlabelled, r"label: expected 0 to 1, received -1. -1 stands for an image without a label"),
        (beyond_the_names, r"label: expected 0 to 1, received 7"),
        (fractional_labels, r"expected an integer or a string, received 0.5"),
        (many_labels, r"label column 'label': expected integers or strings.*received the type list"),
        (decoded_images, r"image column 'image': expected binary.*received the type list"),
        (odd_splits, r"split column 'split': expected train, validation .* received 'holdout'"),
        (null_splits, r"1 of 20 rows have no split"),
        (one_class, r"one class only, 'cat'"),
        (no_rows, r"holds no images"),
    ],
)
def test_invalid_tables_are_refused_with_a_clear_message(
    make: Callable[[Encode], pa.Table], words: str, encode: Encode, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=words):
        prepared(save(make(encode), tmp_path / "t.parquet"), tmp_path / "out")


@pytest.mark.parametrize("option", ["image_column", "label_column", "split_column"])
def test_a_missing_column_is_refused(option: str, encode: Encode, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"no column 'nope' \({option}\). The columns are 'image', 'label'"):
        prepared(save(table(encode), tmp_path / "t.parquet"), tmp_path / "out", **{option: "nope"})


def test_files_with_and_without_a_split_in_their_names(encode: Encode, tmp_path: Path) -> None:
    for name in ("train", "more"):
        save(table(encode), tmp_path / "in" / f"{name}.parquet")
    with pytest.raises(DataError, match=r"all or none of the files .* received 'more.parquet'"):
        prepared(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.feather"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"ARROW1\0\0", b"FEA1 old", b"<html>not found</html>" * 9])
def test_files_that_are_no_tables(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}"):
        prepared(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow"])
def test_damaged_in_the_middle(suffix: str, encode: Encode, tmp_path: Path) -> None:
    file = save(table(encode, range(200), label=list(NAMES) * 100), tmp_path / f"t{suffix}")
    content = bytearray(file.read_bytes())
    content[40 : len(content) // 2] = bytes(len(content) // 2 - 40)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.|can't be read"):
        prepared(file, tmp_path / "out")
