"""Writes and maps one split: an Arrow file whose pixels are a single array that every reader maps into memory.

The file holds one record batch with the columns ``image`` (``arrow.fixed_shape_tensor`` of uint8 (H, W, 3)), ``label``
(int64) and ``id``. Arrow can only write a batch whose pixels are complete. The file is therefore written with a hole in
their place first, which is then filled chunk by chunk, so that no more than one chunk is in memory.
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
"""Bytes of pixels that are copied at a time."""


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a task, memory-mapped: pages are read from disk when they are used.

    Attributes:
        name: train, validation or test.
        images: (N, H, W, 3) uint8, read-only, a view of the mapped file.
        labels: (N,) int64 class indices, read-only.
        ids: (N,) origin of each image: a path inside the input, or file and row.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)


class ArrowStrings(Sequence[str]):
    """The strings of an Arrow array as a sequence; each is converted when it is read."""

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
        path: the new file.
        pixels: raw uint8 pixels of any number of images of ``size``, one after another.
        rows: (N,) numbers of the images to write, in this order; N > 0.
        labels: (N,) class indices.
        ids: (N,) origins of the images.
        size: (H, W) in pixels.

    Raises:
        OSError: ``pixels`` is too short, or the file can't be written.
    """
    width = size[0] * size[1] * 3
    blank = _blank(len(rows) * width)
    batch = _batch(blank, size, labels, ids)
    # Without this option Arrow refuses buffers of more than 2 GiB.
    beyond_2_gib = pa.ipc.IpcWriteOptions(allow_64bit=True)
    with SparseFile(path, blank) as sink, pa.ipc.new_file(sink, batch.schema, options=beyond_2_gib) as writer:
        writer.write_batch(batch)
    # The file is complete except for the hole; the pixels are written into it at their final position.
    offset = _pixels_offset(path)
    with path.open("r+b") as file:
        file.seek(offset)
        for piece in _gathered(pixels, rows, width):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def open_split(path: Path, name: str) -> Split:
    """Map a file that :func:`write_split` wrote, as the split ``name``.

    Raises:
        OSError, ValueError, KeyError, AttributeError: it is no such file (pyarrow's own errors among them).
    """
    batch, _ = _mapped(path)
    images = batch.column("image").to_numpy_ndarray()
    return Split(name, images, batch.column("label").to_numpy(), ArrowStrings(batch.column("id")))


class SparseFile(BufferedWriter):
    """A new file that skips one buffer when it is written: the file gets a hole there, which reads as zeros."""

    def __init__(self, path: Path, blank: Any) -> None:
        super().__init__(FileIO(path, "w"))
        self._blank = blank

    def write(self, data: Any) -> int:
        # Arrow passes the buffer on without a copy, so its address identifies it.
        if isinstance(data, pa.Buffer) and (data.address, data.size) == (
            self._blank.address,
            self._blank.size,
        ):
            self.seek(data.size, os.SEEK_CUR)
            return int(data.size)
        return super().write(data)


def _blank(size: int) -> Any:
    """Return a buffer of untouched anonymous pages, which read as zeros and take no memory."""
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
    """Return the file's record batch, and the buffer of the whole file, of which it is a view."""
    with path.open("rb") as file:
        whole = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return pa.ipc.open_file(pa.BufferReader(whole)).get_batch(0), whole


def _pixels_offset(path: Path) -> int:
    """Return the position of the first pixel in the file: its address less that of the mapped file."""
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
