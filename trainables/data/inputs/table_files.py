"""Finds and reads Parquet and Arrow files: their schema, some columns, or one column batch by batch.

The first bytes of a file determine its kind, not its name: Hugging Face uses ``.arrow`` for both the file format and
the stream format of Arrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainables.data.inputs.source import printable, quoted_list
from trainables.data.inputs.split_names import find_split_name, parse_split_name
from trainables.errors import DataError

TABLE_EXTENSIONS = (".parquet", ".pq", ".arrow", ".feather", ".ipc")
ROWS_PER_BATCH = 32
"""Number of rows of a Parquet file that are read at a time."""

BUFFER_BYTES = 1 << 20
"""Bytes of a Parquet column that are read at a time. A row group may contain all images, so it is not read whole."""


MAX_REASON_LENGTH = 500
"""Characters of Arrow's own message that an error quotes."""


def table_files(root: Path) -> list[tuple[Path, str | None]]:
    """Return the table files of a folder with their splits. They lie in the folder itself, in ``data`` or in split
    folders.

    Raises:
        DataError: some file names contain a split and some do not.
    """
    files = _directly_in(root) or _directly_in(root / "data")
    if not files:
        folders = sorted(folder for folder in root.iterdir() if parse_split_name(folder.name))
        return [(file, parse_split_name(folder.name)) for folder in folders for file in _directly_in(folder)]
    found = [(file, find_split_name(file.stem)) for file in files]
    nameless = [printable(file.name) for file, split in found if split is None]
    if nameless and len(nameless) < len(found):
        raise DataError(
            f"{printable(files[0].parent)}: expected either all or none of the files to have train, "
            f"validation or test in their names, received {quoted_list(nameless)} next to others that do."
        )
    return found


def _directly_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = (file for file in folder.iterdir() if file.suffix.lower() in TABLE_EXTENSIONS)
    return sorted(file for file in files if file.is_file() and not file.name.startswith("."))


class TableFile:
    """One Parquet or Arrow file.

    Raises:
        DataError: from every method, when the file is damaged or of another kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parquet = False
        with self._readable():
            self._parquet = self._kind() == "parquet"
            self.schema: Any = self._open().schema_arrow if self._parquet else self._open().schema
            _refuse_unreadable_names(self.schema)

    @property
    def rows(self) -> int:
        """Number of rows of the file."""
        with self._readable():
            if self._parquet:
                return int(self._open().metadata.num_rows)
            return sum(batch.num_rows for batch in self._batches())

    def columns(self, names: Sequence[str]) -> Any:
        """Read these columns whole, as a pyarrow Table."""
        with self._readable():
            if self._parquet:
                return _validated(self._open().read(columns=list(names)))
            batches = [_validated(batch.select(list(names))) for batch in self._batches()]
            return pa.Table.from_batches(batches, pa.schema([self.schema.field(name) for name in names]))

    def arrays(self, name: str) -> Iterator[Any]:
        """Yield one column as pyarrow Arrays; of a Parquet file a few rows at a time, to bound the memory."""
        with self._readable():
            if self._parquet:
                for batch in self._open().iter_batches(ROWS_PER_BATCH, columns=[name], use_threads=False):
                    yield _validated(batch).column(0)
            else:
                for batch in self._batches():
                    yield _validated(batch.select([name])).column(0)

    def _kind(self) -> str:
        with self.path.open("rb") as file:
            magic = file.read(6)
        if magic.startswith(b"FEA1"):
            raise DataError(
                f"{printable(self.path)} is in Feather's old format: write it again as version 2."
            )
        return (
            "parquet" if magic.startswith((b"PAR1", b"PARE")) else "file" if magic == b"ARROW1" else "stream"
        )

    def _open(self) -> Any:
        if self._parquet:
            return pq.ParquetFile(self.path, buffer_size=BUFFER_BYTES, pre_buffer=False)
        # Mapped, so that a column of images is not read before its rows are needed.
        mapped = pa.memory_map(str(self.path))
        return pa.ipc.open_file(mapped) if self._kind() == "file" else pa.ipc.open_stream(mapped)

    def _batches(self) -> Iterator[Any]:
        reader = self._open()
        if isinstance(reader, pa.RecordBatchFileReader):
            return (reader.get_batch(number) for number in range(reader.num_record_batches))
        return iter(reader)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, UnicodeError, MemoryError) as error:
            kind = "a Parquet" if self._parquet else "an Arrow"
            words = " ".join(str(error).split())[:MAX_REASON_LENGTH] or "not enough memory"
            raise DataError(f"can't read {printable(self.path)} as {kind} file: {words}") from error


def _refuse_unreadable_names(kind: Any) -> None:
    """Read all names of a schema or struct, so that a damaged name raises UnicodeDecodeError here and not later."""
    for field in kind:
        if field.name and pa.types.is_struct(field.type):
            _refuse_unreadable_names(field.type)


def _validated(data: Any) -> Any:
    """Return ``data``, a RecordBatch or a Table, after validating its buffers.

    Arrow maps a file without checks: reading a value through a damaged offset would crash the process.
    """
    data.validate(full=True)
    return data
