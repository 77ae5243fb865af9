"""The interface of every data source: it lists its images, then yields them, still encoded."""

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
"""Characters of a name that a message shows."""

UNSPLIT = -1
"""The split of an image whose input does not name one."""

NO_LABEL = -1
"""The label of an image without a label, or whose label must not be read; occurs in unlabelled targets only."""

Encoded: TypeAlias = Path | bytes | memoryview
"""An encoded image: its file, or the bytes of such a file."""


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of an input, before any is decoded.

    Attributes:
        ids: (N,) origin of each image: a path inside the folder, or file and row.
        labels: (N,) int64 index into ``classes``, or :data:`NO_LABEL`.
        splits: (N,) int8 index into :data:`SPLITS`, or :data:`UNSPLIT`.
        classes: class names, in the order of their indices.
        notes: sentences for the user on what was left out.
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    splits: NDArray[np.int8]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, rows: NDArray[np.int64]) -> Listing:
        """Return the listing of ``rows`` (n,) alone, in their order."""
        ids = [self.ids[row] for row in rows]
        return Listing(ids, self.labels[rows], self.splits[rows], self.classes, self.notes)

    def per_class(self, split: int) -> NDArray[np.int64]:
        """Return the number of images of each class in ``split``: (classes,) int64."""
        known = (self.splits == split) & (self.labels != NO_LABEL)
        return np.bincount(self.labels[known], minlength=len(self.classes))


class DataSource(Protocol):
    """A dataset that can be listed and read, such as an image folder. ``place`` describes where it is, for messages."""

    @property
    def place(self) -> str: ...

    def fingerprint(self) -> str:
        """Return a digest that changes with the files' names, sizes and modification times. Decodes no image."""
        ...

    def listing(self) -> Listing:
        """List all images.

        Raises:
            DataError: there are none, or labels or splits are not valid.
        """
        ...

    def images(self) -> Iterator[Encoded | None]:
        """Yield the encoded images in the order of the listing; None for an empty cell of a table."""
        ...

    def keys(self) -> Sequence[bytes] | None:
        """Return the key of each image (32 bytes), from which its split and its position follow.

        None takes the SHA-256 of each encoded image. A source that encodes its images itself returns keys, because an
        encoder may write other bytes in another version.
        """
        ...


def printable(name: str | Path) -> str:
    """Return ``name`` as valid Unicode text: undecodable bytes become escapes.

    >>> printable(os.fsdecode(b"caf\\xe9.png"))
    'caf\\\\xe9.png'
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def quoted_list(words: Sequence[str], max_names: int = 10) -> str:
    """Return the first ``max_names`` words, quoted and shortened, and how many more there are."""
    cut = (
        word if len(word) <= MAX_WORD_LENGTH else f"{word[:MAX_WORD_LENGTH]}…" for word in words[:max_names]
    )
    shown = ", ".join(map(repr, cut))
    return f"{shown} and {len(words) - max_names} more" if len(words) > max_names else shown


TRAIN, TEST = SPLITS.index("train"), SPLITS.index("test")

UNLABELLED_HINT = "With --unlabelled-target (unlabelled_target) only test images of the target need a label."


def splits_with_labels(splits: Collection[int]) -> frozenset[int]:
    """Return the splits of an unlabelled target whose labels are read, given the ``splits`` that the data names.

    This is the test split, or, if it has yet to be made, the images that it may be drawn from.
    """
    return frozenset({TEST}) if TEST in splits else frozenset({UNSPLIT, TRAIN})
