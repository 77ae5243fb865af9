"""One entry as an Arrow IPC file: a row for each image, with its values and their checksum.

The file has one record batch, so that all values lie in one piece and a mapping of the file is an array without a
copy. A writer first lays out the whole file with zeros, which takes the disk space that it needs, then fills in rows
as they are computed. Columns: ``values``, a fixed-size list of float16 or float32; ``crc32``, uint32.
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
    """The values (N, …) of ``key``, mapped from ``path`` and read-only; the file is in use as long as they live.

    Args:
        path: the file.
        key: what should be in it.
        verify: compare checksums, which reads the file once.

    Raises:
        FileNotFoundError: no such file.
        OSError: it can't be read.
        DataError: it is empty, damaged or holds something else.
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
    """CRC-32 of each row's bytes: (N,) uint32."""
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
    return np.fromiter((zlib.crc32(row.data) for row in flat), np.uint32, len(flat))


class EntryWriter:
    """An entry that is being written to ``path``, beside its final place. Not for several threads.

    Args:
        path: must not exist; made at once with its full size.
        key: what the entry holds.
        rows: number of images.
        shape: of one image's values.

    Raises:
        OSError: no space left, or no permission.
    """

    def __init__(self, path: Path, key: EntryKey, rows: int, shape: tuple[int, ...]) -> None:
        self.path, self._key, self._rows, self._shape = path, key, rows, shape
        self._filled = 0
        self._sums = np.zeros(rows, np.uint32)
        self._descriptor = _create(path)
        try:
            os.ftruncate(self._descriptor, entry_bytes(rows, shape))  # claims the bytes in the cache's budget
        except OSError:
            self.close()
            raise

    def append(self, values: np.ndarray) -> None:
        """Write the next rows (n, …), float16 or float32; the file becomes float32 with the first such rows."""
        if self._filled == 0:
            self._layout = _lay_out(self.path, self._key, self._rows, self._shape, values.dtype)
        elif values.dtype.name == "float32" and self._layout.dtype == np.float16:
            self._widen()
        rows = np.ascontiguousarray(values, self._layout.dtype)
        _write(self._descriptor, rows, self._layout.values + self._filled * self._row_bytes)
        self._sums[self._filled : self._filled + len(rows)] = checksums(rows)
        self._filled += len(rows)

    def finish(self, final: Path) -> None:
        """Move the entry to ``final``. Not flushed to the disk: checksums tell what a crash of the machine tore."""
        if self._filled != self._rows:
            raise ValueError(f"rows: expected {self._rows}, received {self._filled}")
        _write(self._descriptor, self._sums, self._layout.checksums)
        self.path.replace(final)

    def close(self) -> None:
        """Let go of the file; what is not finished is removed."""
        os.close(self._descriptor)
        self.path.unlink(missing_ok=True)

    @property
    def _row_bytes(self) -> int:
        return self._layout.width * int(self._layout.dtype.itemsize)

    def _widen(self) -> None:
        """Start over as float32 with the rows written so far."""
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
    """Where things are in a file, given as a buffer. Raises what pyarrow raises if it is no such file."""

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
    """Bytes of an entry's file, about; two bytes a value in float16."""
    return rows * (math.prod(shape) * itemsize + 4) + 8192


def _create(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try_lock_exclusive(descriptor)
    return descriptor


def _lay_out(path: Path, key: EntryKey, rows: int, shape: tuple[int, ...], dtype: Any) -> _Layout:
    """Write the whole file to ``path`` with zeros for values, which take no memory here."""
    width = math.prod(shape)
    kind = pa.float32() if dtype == np.float32 else pa.float16()
    columns = [
        pa.FixedSizeListArray.from_arrays(_zeros(kind, rows * width), width),
        _zeros(pa.uint32(), rows),
    ]
    notes = {"unfreeze.key": key.text, "unfreeze.shape": json.dumps(shape)}
    schema = pa.schema([("values", columns[0].type), ("crc32", pa.uint32())], notes)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return _Layout(pa.py_buffer(map_file(path)))


def _zeros(kind: Any, length: int) -> Any:
    untouched = mmap.mmap(-1, max(1, length * kind.bit_width // 8))
    return pa.Array.from_buffers(kind, length, [None, pa.py_buffer(untouched)])


def _write(descriptor: int, array: np.ndarray, offset: int) -> None:
    view = np.ascontiguousarray(array).data.cast("B")
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
