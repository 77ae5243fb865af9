"""The view of a task on which a chosen configuration is trained once more: on training and validation images together.

Once nothing is left to choose, validation images serve best as further images to learn from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from trainables.data.split_file import Split
from trainables.data.task import Task


@dataclass(frozen=True)
class RefitTask(Task):
    """A task whose train split also holds the images of the validation split, behind its own.

    The validation split stays what it was. Its metrics are those of images that were trained on.

    Attributes:
        plain: the task as it was prepared.
        digest: another one than that of ``plain``, so that activations and probes of both are kept apart.
    """

    plain: Task = field(kw_only=True)

    @classmethod
    def of(cls, task: Task) -> RefitTask:
        """Return the view of ``task``."""
        values = {f.name: getattr(task, f.name) for f in fields(Task)}
        values["digest"] = hashlib.sha256(f"refit {task.digest}".encode()).hexdigest()
        images = task.counts["train"] + task.counts["validation"]
        values["counts"] = {**task.counts, "train": images}
        return cls(**values, plain=task)

    def split(self, name: str) -> Split:
        """Map a split into memory; the images of the train split are read when they are indexed."""
        if name != "train":
            return self.plain.split(name)
        parts = [self.plain.split(part) for part in ("train", "validation")]
        images = ConcatenatedImages([part.images for part in parts])
        return Split(
            name,
            cast(
                "NDArray[np.uint8]", images
            ),  # indexed and measured like an array, which is all that readers do
            np.concatenate([part.labels for part in parts]),
            ConcatenatedStrings([part.ids for part in parts]),
        )


class ConcatenatedImages:
    """Arrays of images (N, H, W, 3) one behind the other, indexed like the array that ``np.concatenate`` would copy.

    Args:
        parts: arrays that differ in N at most; mapped files stay on the disk.
    """

    def __init__(self, parts: Sequence[NDArray[np.uint8]]) -> None:
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *map(len, self._parts)])
        self.dtype = self._parts[0].dtype
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *self._parts[0].shape[1:])
        self.ndim = len(self.shape)
        self.nbytes = sum(part.nbytes for part in self._parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for part in self._parts:
            yield from part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.concatenate(self._parts).astype(dtype or self.dtype, copy=False)

    def __getitem__(self, index: int | slice | NDArray[Any] | Sequence[int]) -> NDArray[np.uint8]:
        """Return one image, a slice, or the images of an array of row numbers (…) or of a mask (N,)."""
        if isinstance(index, slice):
            return self._slice(index)
        rows = np.asarray(index)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows) if rows.shape == self.shape[:1] else rows
        if rows.size and not np.issubdtype(rows.dtype, np.integer):
            raise IndexError(
                f"expected whole numbers, a slice or a mask of {len(self)} images, received {index!r}"
            )
        if rows.size and not (-len(self) <= rows.min() and rows.max() < len(self)):
            raise IndexError(f"expected row numbers below {len(self)}, received {rows.min()} to {rows.max()}")
        rows = np.where(rows < 0, rows + len(self), rows).astype(np.int64)
        found = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        for part, start in zip(self._parts, self._starts, strict=False):
            inside = (rows >= start) & (rows < start + len(part))
            found[inside] = part[rows[inside] - start]
        return found

    def _slice(self, index: slice) -> NDArray[np.uint8]:
        start, stop, step = index.indices(len(self))
        if step != 1:
            return self[np.arange(start, stop, step)]
        pieces = [
            part[max(0, start - first) : max(0, stop - first)]
            for part, first in zip(self._parts, self._starts, strict=False)
        ]
        whole = [piece for piece in pieces if len(piece)]
        # Most slices lie in one part, of which a view suffices.
        return whole[0] if len(whole) == 1 else np.concatenate(pieces)


class ConcatenatedStrings(Sequence[str]):
    """Sequences of strings one behind the other; each string is read when it is indexed."""

    def __init__(self, parts: Sequence[Sequence[str]]) -> None:
        self._parts = tuple(parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [text for part in self._parts for text in part[:]][index]
        row = index + len(self) if index < 0 else index
        for part in self._parts:
            if 0 <= row < len(part):
                return part[row]
            row -= len(part)
        raise IndexError(f"expected a row number below {len(self)}, received {index}")
