"""Test that damaged Parquet and Arrow files, and valid ones with unexpected content, are refused with a message.

Damaged files are read in a separate process, because a missing check would cause a crash instead of an exception.
"""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainables.data.inputs.options import DataOptions
from trainables.errors import DataError
from trainables.modalities.image.datasets import prepare

CASES = int(os.environ.get("UNFREEZE_FUZZ_EXAMPLES", "1000"))
"""Number of damaged files in the thorough run."""

LONGEST = 2000
"""Maximum length of a message."""

READER = """\
import json, sys, time
from pathlib import Path
from trainables.modalities.image.datasets import prepare
from trainables.errors import UnfreezeError
for file in sorted(Path(sys.argv[1]).iterdir()):
    print("reading", file.name, flush=True)
    began, task = time.process_time(), Path(sys.argv[2]) / file.name
    try:
        prepare(str(file), image_size=(4, 4), directory=task)
        words = ""
    except UnfreezeError as error:
        words = str(error)
    left = [path.name for path in task.glob("*") if words and path.name != ".lock"]
    print(json.dumps([file.name, words, left, time.process_time() - began]), flush=True)
"""


def picture(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


IMAGES = [picture(number) for number in range(12)]
CODES = [number % 3 for number in range(12)]
WORDS = ["abc"[code] for code in CODES]


def table(label: object = None, **columns: object) -> pa.Table:
    """A table of twelve images of three classes. ``columns`` replace its columns or are added."""
    given = {"image": pa.array(IMAGES, pa.binary()), "label": WORDS if label is None else label, **columns}
    return pa.table(given)


def hugging_face(names: object, label: object = None) -> pa.Table:
    feature = {"_type": "ClassLabel", "names": names}
    stored = json.dumps({"info": {"features": {"label": feature}}})
    return table(CODES if label is None else label).replace_schema_metadata({"huggingface": stored})


def encoded(content: pa.Table, kind: str) -> bytes:
    file = io.BytesIO()
    if kind in ("snappy", "gzip", "none"):
        pq.write_table(content, file, compression=kind)
        return file.getvalue()
    options = pa.ipc.IpcWriteOptions(compression="lz4" if kind == "lz4" else None)
    make = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    with make(file, content.schema, options=options) as writer:
        writer.write_table(content)
    return file.getvalue()


KINDS = ("none", "snappy", "gzip", "file", "lz4", "stream")
TABLES: dict[str, Callable[[], pa.Table]] = {
    "words": table,
    "structs": lambda: table(
        image=[{"bytes": image, "path": "x"} for image in IMAGES], split=["train"] * 6 + ["test"] * 6
    ),
    "large": lambda: table(pa.array(WORDS).dictionary_encode(), image=pa.array(IMAGES, pa.large_binary())),
    "codes": lambda: hugging_face(list("abc")),
    "paths": lambda: table(image=[f"{number}.png" for number in range(12)]),
    "views": lambda: table(pa.array(WORDS, pa.string_view()), image=pa.array(IMAGES, pa.binary_view())),
}
NUMBERS = (0, 1, -1, 2**31 - 1, -(2**31), 2**31, 2**40, 2**63 - 1)


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """Damage bytes, mostly at the ends of the file, where the metadata is."""
    content = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        front, back = (
            chance.randrange(min(len(content), 800)),
            len(content) - 1 - chance.randrange(min(len(content), 1500)),
        )
        at = chance.choice((chance.randrange(len(content)), front, back))
        match chance.randrange(5):
            case 0 | 1:
                content[at] ^= 1 << chance.randrange(8)
            case 2:
                content[at] = chance.choice((0, 1, 127, 128, 255))
            case 3:
                number = chance.choice(NUMBERS) & (2**64 - 1)
                content[at : at + 8] = number.to_bytes(8, "little")
            case _ if len(content) > 200:
                del content[at : at + chance.choice((1, 4, 100))]
    return bytes(content)


def read_apart(seeds: range, folder: Path) -> list[tuple[str, str, list[str], float]]:
    """Read one damaged file per seed; returns its name, the message, files left behind and processor seconds."""
    files, tasks = folder / "damaged files", folder / "tasks"
    files.mkdir()
    wholes = [encoded(make(), kind) for make in TABLES.values() for kind in KINDS]
    for seed in seeds:
        content = damaged(wholes[seed % len(wholes)], random.Random(seed))
        (files / f"{seed:06}.parquet").write_bytes(content)
    command = [sys.executable, "-c", READER, str(files), str(tasks)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, (done.stdout[-200:], done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


def check(found: list[tuple[str, str, list[str], float]], count: int) -> None:
    assert len(found) == count
    for name, words, left, seconds in found:
        assert len(words) < LONGEST, name
        assert left == [], name
        assert seconds < 60, name
    refused = sum(bool(words) for _, words, _, _ in found)
    assert count / 4 < refused < count


def test_damaged_files(tmp_path: Path) -> None:
    check(read_apart(range(100), tmp_path), 100)


@pytest.mark.slow
def test_thousands_of_damaged_files(tmp_path: Path) -> None:
    check(read_apart(range(100, 100 + CASES), tmp_path), CASES)


def struct_twice() -> pa.Table:
    images = pa.StructArray.from_arrays([pa.array(IMAGES), pa.array(IMAGES)], ["bytes", "bytes"])
    return table(image=images)


REFUSED: dict[str, tuple[Callable[[], pa.Table], str]] = {
    "half floats": (lambda: table(pa.array(np.array(CODES, np.float16))), "received the type halffloat"),
    "no number": (lambda: table([0.0, 1.0, float("nan")] * 4), "rows have no label"),
    "infinity": (lambda: table([0.0, 1.0, float("inf")] * 4), "received inf"),
    "halves": (lambda: table([0.0, 1.0, 0.5] * 4), "received 0.5"),
    "lists": (lambda: table([[word] for word in WORDS]), "received the type list"),
    "bytes": (lambda: table([word.encode() for word in WORDS]), "received the type binary"),
    "nothing": (lambda: table(pa.nulls(12)), "received the type null"),
    "gaps": (lambda: table(["a", "b", None] * 4), "4 of 12 rows have no label"),
    "one class": (lambda: table(["a"] * 12), "one class only"),
    "captions": (lambda: table([f"{number} " + "x" * 5000 for number in range(12)]), "at most 500 letters"),
    "zero bytes": (lambda: table(["a\0", "b", "c"] * 4), "names of classes"),
    "too high": (lambda: hugging_face(["a", "b"]), "expected 0 to 1, received 2"),
    "negative": (lambda: hugging_face(list("abc"), [-1, 0, 1] * 4), "received -1"),
    "names twice": (lambda: hugging_face(["a", "a", "c"]), "'a' twice"),
    "long names": (lambda: hugging_face(["a" * 100_000, "b", "c"]), "at most 500 letters"),
    "no rows": (lambda: table().slice(0, 0), "holds no images"),
    "no columns": (lambda: pa.table({}), "no column of images found"),
    "a column twice": (lambda: pa.Table.from_arrays([pa.array(IMAGES)] * 2, ["image"] * 2), "more than one"),
    "images as lists": (lambda: table(image=[[1, 2]] * 12), "received the type list"),
    "images as numbers in structs": (lambda: table(image=[{"bytes": 5}] * 12), "received the type struct"),
    "structs of structs": (lambda: table(image=[{"bytes": {"bytes": b"x"}}] * 12), "the type struct"),
    "a field twice": (struct_twice, "received the type struct"),
    "numbers beside paths": (lambda: table(image=[{"bytes": 5, "path": "x"}] * 12), "No such file"),
    "images as indices": (lambda: table(image=pa.array(IMAGES).dictionary_encode()), "type dictionary"),
    "empty images": (lambda: table(image=[b""] * 12), "the file is empty"),
    "paths with a zero byte": (lambda: table(image=["a\0b"] * 12), "12 of 12 images can't be read"),
    "paths without end": (lambda: table(image=["a" * 5000] * 12), "File name too long"),
    "folders": (lambda: table(image=["/"] * 12), "not a file"),
    "devices": (lambda: table(image=["/dev/zero"] * 12), "not a file"),
    "splits as bytes": (lambda: table(split=[b"train"] * 12), "split column 'split': expected train"),
    "splits as halves": (lambda: table(split=[0.5] * 12), "split: expected"),
    "other splits": (lambda: table(split=["left"] * 12), "received 'left'"),
}


@pytest.mark.parametrize("kind", ["none", "file"])
@pytest.mark.parametrize("what", REFUSED)
def test_unexpected_content_is_refused_with_a_message(
    what: str, kind: str, weird_folder: Path, tmp_path: Path
) -> None:
    make, words = REFUSED[what]
    file = weird_folder / f"{what} {kind}.parquet"
    file.write_bytes(encoded(make(), kind))
    with pytest.raises(DataError) as caught:
        prepare(str(file), image_size=(4, 4), directory=tmp_path / "task")
    assert words in str(caught.value)
    assert file.name in str(caught.value)
    assert len(str(caught.value)) < 10 * LONGEST
    assert [path.name for path in (tmp_path / "task").glob("*")] in ([], [".lock"])


STRANGE: dict[str, tuple[Callable[[], pa.Table], tuple[str, ...]]] = {
    "half a letter": (lambda: hugging_face(["\ud800", "b", "c"]), ("\\ud800", "b", "c")),
    "no names": (lambda: hugging_face([]), ("0", "1", "2")),
    "a number for names": (lambda: hugging_face(5), ("0", "1", "2")),
    "metadata without end": (
        lambda: table().replace_schema_metadata({"huggingface": "[" * 100_000}),
        ("a", "b", "c"),
    ),
    "metadata of another kind": (
        lambda: table().replace_schema_metadata({"huggingface": b"\xff"}),
        ("a", "b", "c"),
    ),
    "a split column of lists": (lambda: table(split=[["train"]] * 12), ("a", "b", "c")),
    "paths as numbers beside images": (
        lambda: table(image=[{"bytes": image, "path": 5} for image in IMAGES]),
        ("a", "b", "c"),
    ),
}


@pytest.mark.parametrize("what", STRANGE)
def test_unusual_but_unambiguous_content_is_read(what: str, tmp_path: Path) -> None:
    make, classes = STRANGE[what]
    file = tmp_path / "strange.parquet"
    file.write_bytes(encoded(make(), "none"))
    task = prepare(str(file), image_size=(4, 4), directory=tmp_path / "task")
    assert task.classes == classes


def test_a_split_column_of_a_wrong_type_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(encoded(table(part=[["train"]] * 12), "none"))
    with pytest.raises(DataError, match=r"split column 'part': expected strings.*list"):
        prepare(
            str(file), image_size=(4, 4), directory=tmp_path / "t", options=DataOptions(split_column="part")
        )


@pytest.mark.parametrize("shape", ["a link to itself", "folders in folders"])
def test_endless_folders_are_refused(shape: str, tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for name in "ab":
        (root / name).mkdir(parents=True)
        for number in range(5):
            (root / name / f"{number}.png").write_bytes(IMAGES[number])
    folder = root / "a"
    if shape == "a link to itself":
        (folder / "it.png").symlink_to(folder / "it.png")
    else:
        for _ in range(200):
            folder = folder / "d"
            folder.mkdir()
    with pytest.raises(DataError, match=r"it\.png|at most 100 folders"):
        prepare(str(root), image_size=(4, 4), directory=tmp_path / "task")
