"""Image folders: one sub-folder per class, either in split folders or on their own.

``DIR/train/CLASS/…/image`` with ``DIR/validation`` and ``DIR/test`` beside it, or ``DIR/CLASS/…/image``.
Folders inside a class folder belong to the class, at any depth. Classes are sorted by name; names that
differ only in their Unicode normal form (NFC, NFD) are one class, since nobody can tell them apart.

Where no trial may see a label, only the folders of the test need class folders: ``DIR/train/image`` will do, and which
class folder a training image lies in is not looked at.
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
    """An image file with its class, None where it has none or may not be known, and the index of its split."""

    file: ImageFile
    label: str | None
    split: int


class ImageFolder:
    """A folder of class folders, or of split folders with class folders in them."""

    def __init__(self, root: Path, ours: Path, unlabelled: bool = False) -> None:
        """List the files below ``root``, but not what lies on the way to ``ours``, where results go.

        ``unlabelled`` is whether no trial may see a label (:mod:`trainables.data.inputs.source`).

        Raises:
            DataError: there are no class folders, or a class folder holds no image.
        """
        self._root = root
        self._unlabelled = unlabelled
        self._clutter = SkippedFiles()
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

    def _read(self, layout: Layout) -> Iterator[LabelledFile]:
        numbered = [(_number(split), folder) for split, folder in layout.folders]
        seen = splits_with_labels({number for number, _ in numbered})
        for number, folder in numbered:
            if self._unlabelled and number not in seen:
                yield from (LabelledFile(file, None, number) for file in images_below(folder, self._clutter))
                continue
            loose = images_directly_in(folder, self._clutter)
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
        for file in images_below(folder, self._clutter):
            found = True
            yield LabelledFile(file, label, split)
        if not found and split in (UNSPLIT, SPLITS.index("train")):
            raise DataError(
                f"class folder {printable(folder)} holds no image. Put images of the class {label!r} there, "
                "or remove the folder."
            )


def _number(split: str | None) -> int:
    return UNSPLIT if split is None else SPLITS.index(split)
