"""One split as an Arrow file whose pixels are a single array on disk, mapped into memory by every reader.

The file holds one record batch: ``image`` (``arrow.fixed_shape_tensor`` of uint8 (H, W, 3)), ``label``
(int64) and ``id``. A batch's pixels must be whole before Arrow can write it, so the file is written with
blank ones first, and these are then filled in piece by piece: no more than a piece is ever in memory.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader, BufferedWriter, FileIO
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

COPY_CHUNK_BYTES = 4 << 20
"""Bytes of pixels that are moved at a time."""


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a task, memory-mapped: nothing is read before it is used.

    Attributes:
        name: train, validation or test.
        images: (N, H, W, 3) uint8, read-only, a view of the mapped file.
        labels: (N,) int64 class index, read-only.
        ids: (N,) where each image came from.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)


class ArrowStrings(Sequence[str]):
    """Strings of an Arrow array, made when asked for."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return list(self._array[index].to_pylist())
        return str(self._array[index].as_py())


def write_split(
    path: Path,
    pixels: BufferedReader,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    ids: Sequence[str],
    size: tuple[int, int],
) -> None:
    """Write a split file.

    Args:
        path: of the new file.
        pixels: raw pixels of any number of images of ``size``, one after the other.
        rows: (N,) which of them to take, in the order wanted; N > 0.
        labels: (N,) class indices.
        ids: (N,) origins.
        size: (H, W).
    """
    width = size[0] * size[1] * 3
    blank = _blank(len(rows) * width)
    batch = _batch(blank, size, labels, ids)
    beyond_2_gib = pa.ipc.IpcWriteOptions(allow_64bit=True)
    with SparseFile(path, blank) as sink, pa.ipc.new_file(sink, batch.schema, options=beyond_2_gib) as writer:
        writer.write_batch(batch)
    offset = _pixels_offset(path)
    with path.open("r+b") as file:
        file.seek(offset)
        for piece in _gathered(pixels, rows, width):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def open_split(path: Path, name: str) -> Split:
    """Map a file that :func:`write_split` wrote; OSError or pyarrow's errors when it isn't one."""
    batch, _ = _mapped(path)
    images = batch.column("image").to_numpy_ndarray()
    return Split(name, images, batch.column("label").to_numpy(), ArrowStrings(batch.column("id")))


class SparseFile(BufferedWriter):
    """A new file with a hole in the place of one buffer: it reads as zeros, and nothing is written there."""

    def __init__(self, path: Path, blank: Any) -> None:
        super().__init__(FileIO(path, "w"))
        self._blank = blank

    def write(self, data: Any) -> int:
        if isinstance(data, pa.Buffer) and (data.address, data.size) == (
            self._blank.address,
            self._blank.size,
        ):
            self.seek(data.size, os.SEEK_CUR)
            return int(data.size)
        return super().write(data)


def _blank(size: int) -> Any:
    """A buffer of pages that don't exist: they read as zeros and take no memory."""
    return pa.py_buffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ))


def _batch(pixels: Any, size: tuple[int, int], labels: NDArray[np.int64], ids: Sequence[str]) -> Any:
    values = pa.Array.from_buffers(pa.uint8(), pixels.size, [None, pixels])
    tensors = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.uint8(), (*size, 3)),
        pa.FixedSizeListArray.from_arrays(values, size[0] * size[1] * 3),
    )
    columns = [tensors, pa.array(labels, pa.int64()), pa.array(ids, pa.large_string())]
    return pa.record_batch(columns, names=["image", "label", "id"])


def _mapped(path: Path) -> tuple[Any, Any]:
    """The file's record batch, and the buffer of the whole file that it is a view of."""
    with path.open("rb") as file:
        whole = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return pa.ipc.open_file(pa.BufferReader(whole)).get_batch(0), whole


def _pixels_offset(path: Path) -> int:
    batch, whole = _mapped(path)
    images = batch.column("image").to_numpy_ndarray()
    return int(images.__array_interface__["data"][0] - whole.address)


def _gathered(pixels: BufferedReader, rows: NDArray[np.int64], width: int) -> Iterator[bytearray]:
    step = max(1, COPY_CHUNK_BYTES // width)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        piece = bytearray(len(some) * width)
        for number, row in enumerate(some):
            pixels.seek(int(row) * width)
            if pixels.readinto(memoryview(piece)[number * width : (number + 1) * width]) != width:
                raise OSError(f"expected {width} bytes of pixels for image {row}, found fewer")
        yield piece
