"""Reads and writes one cache entry: an Arrow IPC file with a row for each image, its values and their checksum.

The file has one record batch, so that all values are contiguous and mapping the file gives an array without a copy. A
writer first creates the whole file with zeros, which reserves the disk space, and then fills in rows as they are
computed. The columns are ``values``, a fixed-size list of float16 or float32, and ``crc32``, uint32.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trainables.activations.key import EntryKey
from trainables.data.file_locks import map_file, map_locked, try_lock_exclusive
from trainables.errors import DataError

_KINDS = {pa.float16(): np.dtype(np.float16), pa.float32(): np.dtype(np.float32)}


def read_entry(path: Path, key: EntryKey, verify: bool = True) -> np.ndarray:
    """Map the values (N, …) of an entry, read-only. The file stays locked as long as the array or a view of it exists.

    Args:
        path: the file.
        key: the expected key.
        verify: compare the checksums, which reads the whole file once.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file can't be read.
        DataError: the file is empty or damaged, or contains another entry.
    """
    mapping: Any = map_locked(path)
    try:
        layout = _Layout(pa.py_buffer(mapping))
        flat = np.frombuffer(mapping, layout.dtype, layout.rows * layout.width, layout.values)
        array: np.ndarray = flat.reshape(layout.rows, *layout.shape)
        written = np.frombuffer(mapping, np.uint32, layout.rows, layout.checksums)
    except (pa.ArrowException, ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise DataError(
            f"cache entry {path}: expected an Arrow file of this format, received {error}"
        ) from error
    if layout.key != key.text:
        raise DataError(f"cache entry {path}: expected {key.text}, received {layout.key}")
    damaged = int(np.count_nonzero(checksums(array) != written)) if verify else 0
    if damaged:
        raise DataError(
            f"cache entry {path}: expected rows as they were written, received {damaged} that differ"
        )
    return array


def checksums(rows: np.ndarray) -> np.ndarray:
    """Return the CRC-32 of the bytes of each row (N, …): (N,) uint32."""
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
    return np.fromiter((zlib.crc32(row.data) for row in flat), np.uint32, len(flat))


class EntryWriter:
    """Writes an entry to ``path`` and moves it to its final path when it is complete. Not thread-safe.

    Args:
        path: must not exist; created at once with its full size.
        key: key of the entry.
        rows: number of images.
        shape: shape of the values of one image.

    Raises:
        OSError: the disk is full, or there is no permission.
    """

    def __init__(self, path: Path, key: EntryKey, rows: int, shape: tuple[int, ...]) -> None:
        self.path, self._key, self._rows, self._shape = path, key, rows, shape
        self._filled = 0
        self._sums = np.zeros(rows, np.uint32)
        self._descriptor = _create(path)
        try:
            # The size counts against the budget of the cache from now on, for other writers too.
            os.ftruncate(self._descriptor, entry_bytes(rows, shape))
        except OSError:
            self.close()
            raise

    def append(self, values: np.ndarray) -> None:
        """Write the next rows (n, …) of float16 or float32; the first float32 rows convert the whole file."""
        if self._filled == 0:
            self._layout = _lay_out(self.path, self._key, self._rows, self._shape, values.dtype)
        elif values.dtype.name == "float32" and self._layout.dtype == np.float16:
            self._widen()
        rows = np.ascontiguousarray(values, self._layout.dtype)
        _write(self._descriptor, rows, self._layout.values + self._filled * self._row_bytes)
        self._sums[self._filled : self._filled + len(rows)] = checksums(rows)
        self._filled += len(rows)

    def finish(self, final: Path) -> None:
        """Move the entry to ``final``.

        The data is not flushed to the disk, which would take time: checksums detect what a crash of the machine lost.

        Raises:
            ValueError: rows are missing.
        """
        if self._filled != self._rows:
            raise ValueError(f"rows: expected {self._rows}, received {self._filled}")
        _write(self._descriptor, self._sums, self._layout.checksums)
        self.path.replace(final)

    def close(self) -> None:
        """Close the file, and remove it unless it was finished."""
        os.close(self._descriptor)
        self.path.unlink(missing_ok=True)

    @property
    def _row_bytes(self) -> int:
        return self._layout.width * int(self._layout.dtype.itemsize)

    def _widen(self) -> None:
        """Start a new float32 file with the rows written so far."""
        # The float32 file takes twice the bytes that were claimed for the entry. The cache may exceed its
        # budget by that until another writer makes room.
        narrow, layout, filled = self._descriptor, self._layout, self._filled
        try:
            self.path.unlink()
            self._descriptor, self._filled = _create(self.path), 0
            for row in range(filled):
                data = os.pread(narrow, layout.width * 2, layout.values + row * layout.width * 2)
                self.append(np.frombuffer(data, np.float16).astype(np.float32)[None])
        finally:
            os.close(narrow)


class _Layout:
    """The positions of values and checksums in a file, which is given as a buffer. Raises pyarrow's own errors."""

    def __init__(self, whole: Any) -> None:
        reader = pa.ipc.open_file(pa.BufferReader(whole))
        if reader.num_record_batches != 1 or reader.schema.names != ["values", "crc32"]:
            raise ValueError("other columns")
        batch, notes = reader.get_batch(0), reader.schema.metadata or {}
        batch.validate(full=False)
        kind = reader.schema.field("values").type
        if not pa.types.is_fixed_size_list(kind) or reader.schema.field("crc32").type != pa.uint32():
            raise ValueError("other types of columns")
        if kind.value_type not in _KINDS:
            raise ValueError(f"values of type {kind.value_type}")
        self.key: str = notes[b"unfreeze.key"].decode()
        self.shape: tuple[int, ...] = tuple(int(n) for n in json.loads(notes[b"unfreeze.shape"]))
        self.dtype: Any = _KINDS[kind.value_type]
        self.rows, self.width = batch.num_rows, int(kind.list_size)
        if math.prod(self.shape) != self.width:
            raise ValueError(f"rows of {self.width} values, shape {self.shape}")
        self.values = batch.column(0).values.buffers()[1].address - whole.address
        self.checksums = batch.column(1).buffers()[1].address - whole.address


def entry_bytes(rows: int, shape: tuple[int, ...], itemsize: int = 2) -> int:
    """Return the approximate size in bytes of an entry of ``rows`` images; ``itemsize`` is 2 for float16.

    Each row has 4 bytes of checksum; 8192 bytes allow for the schema and the footer.
    """
    return rows * (math.prod(shape) * itemsize + 4) + 8192


def _create(path: Path) -> int:
    # The writer's lock marks the draft as alive; another process removes drafts without a lock.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try_lock_exclusive(descriptor)
    return descriptor


def _lay_out(path: Path, key: EntryKey, rows: int, shape: tuple[int, ...], dtype: Any) -> _Layout:
    """Write the whole file to ``path`` with zeros as values, which take no memory in this process."""
    width = math.prod(shape)
    kind = pa.float32() if dtype == np.float32 else pa.float16()
    columns = [
        pa.FixedSizeListArray.from_arrays(_zeros(kind, rows * width), width),
        _zeros(pa.uint32(), rows),
    ]
    notes = {"unfreeze.key": key.text, "unfreeze.shape": json.dumps(shape)}
    schema = pa.schema([("values", columns[0].type), ("crc32", pa.uint32())], notes)
    # pyarrow writes header and footer; the values of this file are overwritten in place later, without pyarrow.
    # Opening the file truncates it and makes no other one, so the lock of the writer's descriptor stays
    # valid.
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return _Layout(pa.py_buffer(map_file(path)))


def _zeros(kind: Any, length: int) -> Any:
    # Anonymous pages that nobody writes read as zeros and take no memory.
    untouched = mmap.mmap(-1, max(1, length * kind.bit_width // 8))
    return pa.Array.from_buffers(kind, length, [None, pa.py_buffer(untouched)])


def _write(descriptor: int, array: np.ndarray, offset: int) -> None:
    # A single pwrite may write less than asked for.
    view = np.ascontiguousarray(array).data.cast("B")
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
