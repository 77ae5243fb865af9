"""Finds out which folders of an image folder are splits and which are classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainables.data.inputs.source import UNLABELLED_HINT, printable, quoted_list
from trainables.data.inputs.split_names import EXPECTED_SPLIT_NAMES, parse_split_name
from trainables.errors import DataError
from trainables.modalities.image.image_files import SkippedFiles, holds_images, images_directly_in, subfolders

EXPECTED_LAYOUTS = (
    "expected DIR/CLASS/image.jpg, or DIR/train/CLASS/image.jpg with DIR/validation and DIR/test"
)


@dataclass(frozen=True)
class Layout:
    """The layout of an image folder.

    Attributes:
        folders: (split, folder) of each folder that contains class folders; the split is None if there are no splits.
        left_out: folders that are no part of the data.
        notes: sentences for the user on what was left out.
    """

    folders: tuple[tuple[str | None, Path], ...]
    left_out: frozenset[Path] = frozenset()
    notes: tuple[str, ...] = ()


def find_layout(root: Path, output_directory: Path) -> Layout:
    """Find the class folders of ``root``, leaving out the folder that leads to ``output_directory``.

    A folder with the name of a split is one only if it contains folders itself: a class may be called ``train``.

    Raises:
        DataError: there are no class folders, or split folders and others are mixed.
    """
    folders = subfolders(root)
    left_out = frozenset(
        folder for folder in folders if folder.resolve() in (output_directory, *output_directory.parents)
    )
    notes = tuple(f"left out the folder {printable(folder)}, where results go" for folder in left_out)
    folders = [folder for folder in folders if folder not in left_out]
    named = [folder for folder in folders if parse_split_name(folder.name)]
    others = [folder for folder in folders if not parse_split_name(folder.name)]
    if not folders:
        raise DataError(_no_images_message(root))
    if not any(subfolders(folder) for folder in named):
        if named and not others:
            raise DataError(
                f"{printable(named[0])} holds no class folders; {EXPECTED_LAYOUTS}. {UNLABELLED_HINT}"
            )
        _refuse_wrapping(folders)
        return Layout(((None, root),), left_out, notes)
    _refuse_mixture(root, named, others)
    return Layout(tuple((parse_split_name(folder.name), folder) for folder in named), left_out, notes)


def _no_images_message(root: Path) -> str:
    loose = images_directly_in(root, SkippedFiles())
    if loose:
        found = f"{printable(root)} holds {len(loose):,} images but no class folders"
        return f"{found}; {EXPECTED_LAYOUTS}. {UNLABELLED_HINT}"
    return f"{printable(root)} holds no images; {EXPECTED_LAYOUTS}, or Parquet or Arrow files."


def _refuse_wrapping(folders: Sequence[Path]) -> None:
    if len(folders) == 1 and (inner := subfolders(folders[0])):
        raise DataError(
            f"{printable(folders[0].parent)} holds one class folder only, {printable(folders[0].name)!r}, "
            f"with the folders {_names(inner)} in it. If these are the classes, pass "
            f"{printable(folders[0])} instead."
        )


def _refuse_mixture(root: Path, named: Sequence[Path], others: Sequence[Path]) -> None:
    splits = [parse_split_name(folder.name) for folder in named]
    twice = [folder for folder in named if splits.count(parse_split_name(folder.name)) > 1]
    if twice:
        raise DataError(
            f"{printable(root)}: expected one folder per split, received {_names(twice)} for the same one."
        )
    if "train" not in splits:
        raise DataError(
            f"{printable(root)} holds {_names(named)} but no train folder; expected {EXPECTED_SPLIT_NAMES}."
        )
    other_class_folders = [folder for folder in others if holds_images(folder)]
    if other_class_folders:
        raise DataError(
            f"{printable(root)} holds images both in split folders ({_names(named)}) and in other folders "
            f"({_names(other_class_folders)}). Move the others away, or, if all of them are classes, put them into a "
            "folder of their own and pass that."
        )


def _names(folders: Sequence[Path]) -> str:
    return quoted_list([printable(folder.name) for folder in folders])
