"""Reads image folders: one sub-folder per class, with or without split folders above them.

The layout is ``DIR/train/CLASS/…/image`` with ``DIR/validation`` and ``DIR/test``, or ``DIR/CLASS/…/image``. All
folders inside a class folder belong to that class. Classes are sorted by name. Names that differ only in their
Unicode normal form (NFC, NFD) look the same and are one class.

In an unlabelled target only the test split needs class folders. ``DIR/train/image`` is enough for training images, and
the class folders they may lie in are ignored.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.data.inputs.source import (
    NO_LABEL,
    SPLITS,
    TEST,
    UNSPLIT,
    Encoded,
    Listing,
    printable,
    splits_with_labels,
)
from trainables.errors import DataError
from trainables.modalities.image.folder_layout import Layout, find_layout
from trainables.modalities.image.image_files import (
    ImageFile,
    SkippedFiles,
    images_below,
    images_directly_in,
    subfolders,
)


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """An image file with its class (None if it has none or it must not be read) and the index of its split."""

    file: ImageFile
    label: str | None
    split: int


class ImageFolder:
    """An image folder as a :class:`trainables.data.inputs.source.DataSource`."""

    def __init__(self, root: Path, output_directory: Path, unlabelled: bool = False) -> None:
        """List the files below ``root``.

        Args:
            root: the image folder.
            output_directory: folder of the results. Those folders of ``root`` that lead to it are left out.
            unlabelled: do not read the labels of training and validation images.

        Raises:
            DataError: there are no class folders, or a class folder holds no image.
        """
        self._root = root
        self._unlabelled = unlabelled
        self._skipped = SkippedFiles()
        layout = find_layout(root, output_directory)
        self._notes = list(layout.notes)
        self._files = list(self._read(layout))
        if self._skipped.count:
            self._notes.append(self._skipped.note)

    @property
    def place(self) -> str:
        return printable(self._root)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for each in self._files:
            digest.update(
                repr((each.file.path, each.label, each.split, each.file.size, each.file.changed)).encode()
            )
        return digest.hexdigest()

    def listing(self) -> Listing:
        classes = tuple(sorted({each.label for each in self._files if each.label is not None}))
        index: dict[str | None, int] = {name: number for number, name in enumerate(classes)}
        return Listing(
            ids=[printable(Path(each.file.path).relative_to(self._root)) for each in self._files],
            labels=np.array([index.get(each.label, NO_LABEL) for each in self._files], dtype=np.int64),
            splits=np.array([each.split for each in self._files], dtype=np.int8),
            classes=classes,
            notes=tuple(self._notes),
        )

    def images(self) -> Iterator[Encoded | None]:
        return (Path(each.file.path) for each in self._files)

    def keys(self) -> None:
        return None

    def _read(self, layout: Layout) -> Iterator[LabelledFile]:
        numbered = [(_number(split), folder) for split, folder in layout.folders]
        seen = splits_with_labels({number for number, _ in numbered})
        for number, folder in numbered:
            if self._unlabelled and number not in seen:
                yield from (LabelledFile(file, None, number) for file in images_below(folder, self._skipped))
                continue
            loose = images_directly_in(folder, self._skipped)
            if self._unlabelled and number != TEST:
                yield from (LabelledFile(file, None, number) for file in loose)
            elif loose:
                self._notes.append(
                    f"left out {len(loose):,} images outside any class folder, in {printable(folder)}"
                )
            for class_folder in subfolders(folder):
                if class_folder not in layout.left_out:
                    yield from self._read_class(class_folder, number)

    def _read_class(self, folder: Path, split: int) -> Iterator[LabelledFile]:
        label = unicodedata.normalize("NFC", printable(folder.name))
        found = False
        for file in images_below(folder, self._skipped):
            found = True
            yield LabelledFile(file, label, split)
        if not found and split in (UNSPLIT, SPLITS.index("train")):
            raise DataError(
                f"class folder {printable(folder)} holds no image. Put images of the class {label!r} there, "
                "or remove the folder."
            )


def _number(split: str | None) -> int:
    return UNSPLIT if split is None else SPLITS.index(split)
