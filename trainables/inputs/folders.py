"""Image folders: one sub-folder per class, either in split folders or on their own.

``DIR/train/CLASS/…/image`` with ``DIR/validation`` and ``DIR/test`` beside it, or ``DIR/CLASS/…/image``.
Folders inside a class folder belong to the class, at any depth. Classes are sorted by name; names that
differ only in their Unicode normal form (NFC, NFD) are one class, since nobody can tell them apart.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.errors import DataError
from trainables.inputs.layout import Layout, find_layout
from trainables.inputs.source import SPLITS, UNSPLIT, Encoded, Listing, printable
from trainables.inputs.walk import Clutter, ImageFile, images_below, images_directly_in, subfolders


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """An image file with its class and the index of its split."""

    file: ImageFile
    label: str
    split: int


class ImageFolder:
    """A folder of class folders, or of split folders with class folders in them."""

    def __init__(self, root: Path, ours: Path) -> None:
        """List the files below ``root``, but not what lies on the way to ``ours``, where results go.

        Raises:
            DataError: there are no class folders, or a class folder holds no image.
        """
        self._root = root
        self._clutter = Clutter()
        layout = find_layout(root, ours)
        self._notes = list(layout.notes)
        self._files = list(self._read(layout))
        if self._clutter.count:
            self._notes.append(self._clutter.note)

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
        classes = tuple(sorted({each.label for each in self._files}))
        index = {name: number for number, name in enumerate(classes)}
        return Listing(
            ids=[printable(Path(each.file.path).relative_to(self._root)) for each in self._files],
            labels=np.array([index[each.label] for each in self._files], dtype=np.int64),
            splits=np.array([each.split for each in self._files], dtype=np.int8),
            classes=classes,
            notes=tuple(self._notes),
        )

    def images(self) -> Iterator[Encoded | None]:
        return (Path(each.file.path) for each in self._files)

    def _read(self, layout: Layout) -> Iterator[LabelledFile]:
        for split, folder in layout.folders:
            loose = images_directly_in(folder, self._clutter)
            if loose:
                self._notes.append(
                    f"left out {len(loose):,} images outside any class folder, in {printable(folder)}"
                )
            number = UNSPLIT if split is None else SPLITS.index(split)
            for class_folder in subfolders(folder):
                if class_folder not in layout.left_out:
                    yield from self._read_class(class_folder, number)

    def _read_class(self, folder: Path, split: int) -> Iterator[LabelledFile]:
        label = unicodedata.normalize("NFC", printable(folder.name))
        found = False
        for file in images_below(folder, self._clutter):
            found = True
            yield LabelledFile(file, label, split)
        if not found and split in (UNSPLIT, SPLITS.index("train")):
            raise DataError(
                f"class folder {printable(folder)} holds no image. Put images of the class {label!r} there, "
                "or remove the folder."
            )
