"""What every input offers: a listing of its images, then the images themselves, still encoded.

Which labels of a target are read where no trial may see those of its training and validation images.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")
MAX_WORD_LENGTH = 80
"""Letters of a name that are worth reading in a message."""

UNSPLIT = -1
"""The split of an image whose input doesn't name one."""

NO_LABEL = -1
"""The label of an image whose input has none, or one that may not be read: only in a target without labels."""

Encoded: TypeAlias = Path | bytes | memoryview
"""An image as its file, or as the bytes of such a file."""


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of an input, before any is decoded.

    Attributes:
        ids: (N,) where each image came from: a path inside the folder, or file and row.
        labels: (N,) int64 index into ``classes``, or :data:`NO_LABEL`.
        splits: (N,) int8 index into :data:`SPLITS`, or :data:`UNSPLIT`.
        classes: names of the classes, in the order of their indices.
        notes: sentences on what was left out or taken for granted.
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    splits: NDArray[np.int8]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, rows: NDArray[np.int64]) -> Listing:
        """The same listing with ``rows`` alone, in their order."""
        ids = [self.ids[row] for row in rows]
        return Listing(ids, self.labels[rows], self.splits[rows], self.classes, self.notes)

    def per_class(self, split: int) -> NDArray[np.int64]:
        """(classes,) how many images of each class are in ``split``."""
        known = (self.splits == split) & (self.labels != NO_LABEL)
        return np.bincount(self.labels[known], minlength=len(self.classes))


class DataSource(Protocol):
    """One input. ``place`` says where it is, in words for a person."""

    @property
    def place(self) -> str: ...

    def fingerprint(self) -> str:
        """A digest that changes with the files' names, sizes and times, found without decoding images."""
        ...

    def listing(self) -> Listing:
        """All images of the input.

        Raises:
            DataError: the input is empty, or its labels or splits can't be understood.
        """
        ...

    def images(self) -> Iterator[Encoded | None]:
        """The images in the order of the listing; None where there is none."""
        ...


def printable(name: str | Path) -> str:
    """``name`` as text that any encoding of Unicode can hold: undecodable bytes become escapes.

    >>> printable(os.fsdecode(b"caf\\xe9.png"))
    'caf\\\\xe9.png'
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def quoted_list(words: Sequence[str], most: int = 10) -> str:
    """The first ``most`` words, quoted, and how many there are beyond; long ones are cut."""
    cut = (word if len(word) <= MAX_WORD_LENGTH else f"{word[:MAX_WORD_LENGTH]}…" for word in words[:most])
    shown = ", ".join(map(repr, cut))
    return f"{shown} and {len(words) - most} more" if len(words) > most else shown


TRAIN, TEST = SPLITS.index("train"), SPLITS.index("test")

UNLABELLED_HINT = "With --unlabelled-target (unlabelled_target) only test images of the target need a label."


def splits_with_labels(splits: Collection[int]) -> frozenset[int]:
    """Indices of the splits whose labels are read, of an input that names ``splits``.

    These are the test's; or, where the test has yet to be split off, those of the images that it may be drawn from.
    """
    return frozenset({TEST}) if TEST in splits else frozenset({UNSPLIT, TRAIN})
