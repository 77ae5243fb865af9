"""Image folders: which files are read, which are left out, and error messages."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from trainables.data.inputs.options import DataOptions
from trainables.data.task import Task
from trainables.errors import DataError
from trainables.modalities.image.datasets import prepare

Fill = Callable[[Path, Mapping[str, int]], Path]
Encode = Callable[..., bytes]

PLENTY = {"cat": 10, "dog": 10}


def prepared(data: Path, into: Path, **options: object) -> Task:
    return prepare(str(data), image_size=(6, 6), directory=into, options=DataOptions(**options))  # type: ignore[arg-type]


def all_ids(task: Task) -> list[str]:
    return sorted(image for name in task.counts for image in task.split(name).ids)


def test_class_folders_are_split_and_the_notes_say_so(odd_path: Path, fill: Fill, tmp_path: Path) -> None:
    root = fill(odd_path / "zwölf Tiere", {"cät 猫": 10, "dog's": 20})
    task = prepared(root, tmp_path / "out")
    assert task.name == "zwölf Tiere"
    assert task.classes == ("cät 猫", "dog's")
    assert task.counts == {"train": 18, "validation": 6, "test": 6}
    for name, per_class in (("train", [6, 12]), ("validation", [2, 4]), ("test", [2, 4])):
        split = task.split(name)
        assert np.bincount(split.labels).tolist() == per_class
        assert all(
            i.startswith(task.classes[label]) for i, label in zip(split.ids, split.labels, strict=True)
        )
    assert any("split off 6 images for validation and 6 images for test" in note for note in task.notes)
    assert len(set(all_ids(task))) == 30


def test_fractions_and_seed_of_the_split(fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"a": 20, "b": 20})
    task = prepared(root, tmp_path / "1", validation_fraction=0.1, test_fraction=0.25)
    assert task.counts == {"train": 26, "validation": 4, "test": 10}
    other = prepared(root, tmp_path / "2", validation_fraction=0.1, test_fraction=0.25, seed=1)
    assert other.counts == task.counts
    assert other.digest != task.digest
    assert set(other.split("test").ids) != set(task.split("test").ids)


@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("Train", "VAL", "Test"), ("training", "valid", "testing")]
)
def test_split_folders(names: tuple[str, str, str], odd_path: Path, fill: Fill, tmp_path: Path) -> None:
    for name, count in zip(names, (5, 3, 2), strict=True):
        fill(odd_path / name, {"cat": count, "dog": count})
    task = prepared(odd_path, tmp_path / "out")
    assert task.counts == {"train": 10, "validation": 6, "test": 4}
    assert {Path(image).parts[0] for image in task.split("validation").ids} == {names[1]}
    assert not any("split off" in note for note in task.notes)


@pytest.mark.parametrize(("given", "made"), [("validation", "test"), ("test", "validation")])
def test_a_missing_split_is_taken_from_train(given: str, made: str, fill: Fill, tmp_path: Path) -> None:
    root = tmp_path / "in"
    fill(root / "train", PLENTY)
    fill(root / given, {"cat": 3, "dog": 3})
    task = prepared(root, tmp_path / "out")
    assert task.counts == {"train": 16, given: 6, made: 4}
    assert any(f"no {made} split: split off 4 images" in note for note in task.notes)


def test_train_alone_is_split_in_three(fill: Fill, tmp_path: Path) -> None:
    fill(tmp_path / "in" / "train", PLENTY)
    assert prepared(tmp_path / "in", tmp_path / "out").counts == {"train": 12, "validation": 4, "test": 4}


def test_other_files_are_left_out_and_counted(fill: Fill, encode: Encode, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", PLENTY)
    (root / "cat" / "notes.TXT").write_text("not an image")
    (root / "cat" / "Thumbs.db").write_bytes(b"x")
    (root / "cat" / ".DS_Store").write_bytes(b"x")
    (root / "cat" / "._000.png").write_bytes(b"AppleDouble")
    (root / ".ipynb_checkpoints").mkdir()
    (root / "__MACOSX" / "cat").mkdir(parents=True)
    (root / "__MACOSX" / "cat" / "1.png").write_bytes(encode(999))
    (root / "preview.png").write_bytes(encode(998))
    os.mkfifo(root / "dog" / "pipe.png")
    task = prepared(root, tmp_path / "out")
    assert sum(task.counts.values()) == 20
    assert any("left out 2 files that hold no image (.db, .txt)" in note for note in task.notes)
    assert any("left out 1 images outside any class folder" in note for note in task.notes)


def test_any_extension_or_none_is_an_image(fill: Fill, encode: Encode, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", PLENTY)
    for number, name in enumerate(("UPPER.PNG", "none", "odd.ext", "dots.in.name.png"), start=100):
        (root / "cat" / name).write_bytes(encode(number))
    assert sum(prepared(root, tmp_path / "out").counts.values()) == 24


def test_folders_inside_a_class_belong_to_it(fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"cat/2023/may": 5, "cat": 5, "dog/x": 10})
    task = prepared(root, tmp_path / "out")
    assert task.classes == ("cat", "dog")
    assert sum(task.counts.values()) == 20


def test_links_are_followed_but_not_in_circles(fill: Fill, tmp_path: Path) -> None:
    store = fill(tmp_path / "store", {"dogs": 10, "cats": 10})
    root = tmp_path / "in"
    (root / "cat").mkdir(parents=True)
    for file in (store / "cats").iterdir():
        (root / "cat" / file.name).symlink_to(file)
    (root / "cat" / "again").symlink_to(root)
    (root / "dog").symlink_to(store / "dogs", target_is_directory=True)
    task = prepared(root, tmp_path / "out")
    assert np.bincount(task.split("train").labels)[1] == 6
    assert "dog/000.png" in all_ids(task)


def test_a_class_may_be_called_train(fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "vehicles", {"bus": 5, "car": 5, "train": 5})
    assert prepared(root, tmp_path / "out").classes == ("bus", "car", "train")


def test_names_in_two_normal_forms_are_one_class(fill: Fill, tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    root = tmp_path / "in"
    fill(root / "train", {composed: 5, "tea": 5})
    fill(root / "val", {decomposed: 2, "tea": 2})
    fill(root / "test", {decomposed: 2, composed: 2, "tea": 2})
    task = prepared(root, tmp_path / "out")
    assert task.classes == (composed, "tea")
    assert task.counts == {"train": 10, "validation": 4, "test": 6}


def test_names_that_are_no_unicode(fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {os.fsdecode(b"caf\xe9"): 5, "tea": 5})
    task = prepared(root, tmp_path / os.fsdecode(b"out \xff"))
    assert task.classes == ("caf\\xe9", "tea")
    assert len(task.split("train").ids) == 6


def test_the_folder_of_results_is_no_class(fill: Fill, encode: Encode, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", PLENTY)
    results = root / "unfreeze-runs" / "digits"
    results.mkdir(parents=True)
    (results / "plot.png").write_bytes(encode(1000))
    task = prepared(root, results / "data")
    assert task.classes == ("cat", "dog")
    assert any("where results go" in note for note in task.notes)


def test_the_notes_name_identical_images_in_train_and_test(fill: Fill, tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in ("train", "val", "test"):
        fill(root / name, PLENTY)
    (root / "test" / "cat" / "copy.png").write_bytes((root / "train" / "cat" / "000.png").read_bytes())
    notes = prepared(root, tmp_path / "out").notes
    assert any(note.startswith("1 images of test are in train, too") for note in notes)


# ---------------------------------------------------------------- bad images


def spoil(root: Path) -> None:
    (root / "cat" / "000.png").write_bytes(b"")
    (root / "cat" / "001.png").write_bytes((root / "cat" / "001.png").read_bytes()[:60])
    (root / "dog" / "002.jpg").symlink_to(root / "nowhere.jpg")
    (root / "dog" / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))


def test_bad_images_are_named_with_their_reasons(fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", PLENTY)
    spoil(root)
    with pytest.raises(DataError) as caught:
        prepared(root, tmp_path / "out")
    text = str(caught.value)
    assert "4 of 22 images can't be read" in text
    assert "cat/000.png: the file is empty" in text
    assert "cat/001.png: " in text
    assert "dog/002.jpg: No such file" in text
    assert "dog/photo.heic: not in an image format" in text
    assert "--skip-bad-images" in text
    assert not list((tmp_path / "out").glob("*.arrow"))


def test_bad_images_are_left_out_on_demand(fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", PLENTY)
    spoil(root)
    task = prepared(root, tmp_path / "out", skip_bad_images=True)
    assert sum(task.counts.values()) == 18
    assert [image for image, _ in task.skipped] == [
        "cat/000.png",
        "cat/001.png",
        "dog/002.jpg",
        "dog/photo.heic",
    ]
    assert task.skipped[0][1] == "the file is empty (0 bytes)"
    assert not {image for image, _ in task.skipped} & set(all_ids(task))


def test_only_the_first_bad_images_are_listed(fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"cat": 30, "dog": 30})
    for number in range(25):
        (root / "cat" / f"{number:03}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"25 of 60 images[\s\S]*and 15 more"):
        prepared(root, tmp_path / "out")


@pytest.mark.parametrize("skip", [False, True])
def test_no_image_at_all_can_be_read(skip: bool, fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"cat": 3, "dog": 3})
    for file in root.rglob("*.png"):
        file.write_bytes(b"?")
    with pytest.raises(DataError, match="6 of 6 images can't be read") as caught:
        prepared(root, tmp_path / "out", skip_bad_images=skip)
    assert "--skip-bad-images" not in str(caught.value)


def test_a_class_whose_images_are_all_bad_is_refused(fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"cat": 5, "dog": 5, "emu": 5})
    for file in (root / "emu").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"without the 5 images.* no image of 'emu' can be read"):
        prepared(root, tmp_path / "out", skip_bad_images=True)


# ---------------------------------------------------------------- refusals


def loose(root: Path, fill: Fill) -> None:
    fill(root, {".": 3})


def empty(root: Path, fill: Fill) -> None:
    root.mkdir()


def one_class(root: Path, fill: Fill) -> None:
    fill(root, {"cat": 5})


def wrapped(root: Path, fill: Fill) -> None:
    fill(root / "archive", PLENTY)


def class_without_images(root: Path, fill: Fill) -> None:
    fill(root, {**PLENTY, "emu": 0})


def too_few(root: Path, fill: Fill) -> None:
    fill(root, {**PLENTY, "emu": 2})


def too_few_for_validation(root: Path, fill: Fill) -> None:
    fill(root / "train", {**PLENTY, "emu": 1})
    fill(root / "test", PLENTY)


def stranger(root: Path, fill: Fill) -> None:
    fill(root / "train", PLENTY)
    fill(root / "val", {"cat": 2, "emu": 2})


def no_train(root: Path, fill: Fill) -> None:
    fill(root / "test", PLENTY)


def twice(root: Path, fill: Fill) -> None:
    for name in ("train", "val", "validation"):
        fill(root / name, PLENTY)


def mixture(root: Path, fill: Fill) -> None:
    fill(root / "train", PLENTY)
    fill(root, {"bus": 3})


def splits_without_classes(root: Path, fill: Fill) -> None:
    fill(root, {"train": 3, "test": 3})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (empty, r"holds no images; expected DIR/CLASS/image.jpg"),
        (loose, r"holds 3 images but no class folders; expected DIR/CLASS"),
        (one_class, r"one class only, 'cat': expected at least two"),
        (wrapped, r"one class folder only, 'archive'.*'cat', 'dog'.*pass .*in/archive instead"),
        (class_without_images, r"class folder .*emu holds no image.*or remove the folder"),
        (too_few, r"1 of 3 classes have too few .* validation and test: expected at least 3 .* 'emu \(2\)'"),
        (too_few_for_validation, r"split off validation: expected at least 2 a class, received 'emu \(1\)'"),
        (stranger, r"validation holds images of 'emu', but train doesn't"),
        (no_train, r"holds 'test' but no train folder"),
        (twice, r"one folder per split, received 'val', 'validation'"),
        (mixture, r"both in split folders \('train'\) and in other folders \('bus'\)"),
        (splits_without_classes, r"test holds no class folders; expected DIR/CLASS"),
    ],
)
def test_invalid_folders_are_refused_with_a_clear_message(
    make: Callable[[Path, Fill], None], words: str, fill: Fill, tmp_path: Path
) -> None:
    make(tmp_path / "in", fill)
    with pytest.raises(DataError, match=words):
        prepared(tmp_path / "in", tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list any folder")
def test_an_unreadable_folder_is_refused(fill: Fill, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", PLENTY)
    (root / "cat").chmod(0)
    try:
        with pytest.raises(DataError, match=r"can't list .*cat: Permission denied"):
            prepared(root, tmp_path / "out")
    finally:
        (root / "cat").chmod(0o755)
