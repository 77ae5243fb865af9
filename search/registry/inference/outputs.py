"""Write predictions as CSV, JSON lines or Parquet, to a stream or atomically to a file."""

from __future__ import annotations

import csv
import io
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from trainables.errors import UsageError

if TYPE_CHECKING:
    from search.registry.inference.classifier import Prediction


def check_writable(output: str, overwrite: bool, folders: bool = False) -> Path:
    """Return the path of ``--output``, after checking that it is free and writable; its folder is created.

    Args:
        output: the path.
        overwrite: whether an existing file may be replaced.
        folders: whether an existing folder may be replaced, too.

    Raises:
        UsageError: the path is not free or not writable.
    """
    target = Path(output)
    if target.exists() and not (target.is_file() or folders):
        raise UsageError(f"--output: expected a file, received {output!r}, which is none")
    if target.exists() and not overwrite:
        raise UsageError(f"--output: {output!r} already exists; use --overwrite to replace it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Creating something is the only reliable test: permission bits do not show read-only mounts or quotas.
        probe = target.with_name(f".{uuid.uuid4().hex}.tmp")
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise UsageError(
            f"--output: expected a path that can be written, received {output!r}: {error.strerror}"
        ) from error
    return target


PREDICTION_FORMATS = ("csv", "jsonl", "parquet")

FIRST_COLUMNS = ("path", "class", "probability")
DIGITS = 6
"""Decimals of a probability in text formats."""

ROW_GROUP = 16_384
"""Number of rows that are held in memory before they are written to a Parquet file."""


class PredictionWriter(Protocol):
    """Write predictions one by one."""

    def write(self, prediction: Prediction) -> None:
        """Write the prediction for one image that could be read."""
        ...

    def close(self) -> None:
        """Write everything that is still buffered."""
        ...


def output_format(path: str | None, wanted: str | None) -> str:
    """Return the requested format, or the one that the extension of ``path`` implies, or CSV.

    Raises:
        UsageError: the format is unknown, the extension implies none, or the format is Parquet without a file.
    """
    if wanted is not None and wanted not in PREDICTION_FORMATS:
        raise UsageError(f"--format: expected one of {', '.join(PREDICTION_FORMATS)}, received {wanted!r}")
    if path is None:
        if wanted == "parquet":
            raise UsageError("--format: parquet expects a file to write to: --output FILE.parquet")
        return wanted or "csv"
    extension = Path(path).suffix.lower().removeprefix(".")
    if wanted is None and extension not in PREDICTION_FORMATS:
        known = ", ".join(f".{name}" for name in PREDICTION_FORMATS)
        raise UsageError(f"--output: expected a name that ends in {known}, or --format; received {path!r}")
    return wanted or extension


def columns(classes: Sequence[str], whole: bool) -> list[str]:
    """Return the names of the columns: three, and one per class if ``whole``.

    The column of a class is called ``class:NAME`` if another column already has its name.
    """
    names = list(FIRST_COLUMNS)
    for name in classes if whole else ():
        names.append(f"class:{name}" if name in names else name)
    return names


@contextmanager
def open_output(path: str, kind: str, classes: Sequence[str], whole: bool) -> Iterator[PredictionWriter]:
    """Yield a writer to a temporary file that replaces ``path`` at the end, unless an error occurs."""
    target = Path(path)
    temporary = target.with_name(f".{target.name[:40]}-{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            writer = writer_to(file, kind, classes, whole)
            try:
                yield writer
            except BaseException:
                # The file is deleted below, so that a failure to complete it does not matter.
                with suppress(Exception):
                    writer.close()
                raise
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def writer_to(stream: Any, kind: str, classes: Sequence[str], whole: bool) -> PredictionWriter:
    """Return a writer of one of :data:`PREDICTION_FORMATS` to a stream of text or of bytes, which stays open."""
    if kind == "parquet":
        return _ParquetWriter(stream, classes, whole)
    text: Any = stream if isinstance(stream, io.TextIOBase) else _BorrowedStream(stream, "utf-8", newline="")
    return (_CsvWriter if kind == "csv" else _JsonWriter)(text, classes, whole)


class _BorrowedStream(io.TextIOWrapper):
    """A text layer on a byte stream that belongs to the caller and must not be closed."""


class _CsvWriter:
    def __init__(self, stream: IO[str], classes: Sequence[str], whole: bool) -> None:
        self._stream, self._classes, self._whole = stream, classes, whole
        self._writer = csv.writer(stream, lineterminator="\n")
        self._writer.writerow(columns(classes, whole))

    def write(self, prediction: Prediction) -> None:
        name, probability = prediction.top(self._classes)
        rest = prediction.probabilities if self._whole else ()
        self._writer.writerow([prediction.path, name, *(f"{p:.{DIGITS}f}" for p in (probability, *rest))])

    def close(self) -> None:
        _release(self._stream)


class _JsonWriter:
    def __init__(self, stream: IO[str], classes: Sequence[str], whole: bool) -> None:
        self._stream, self._classes, self._whole = stream, classes, whole

    def write(self, prediction: Prediction) -> None:
        name, probability = prediction.top(self._classes)
        values: tuple[object, ...] = (prediction.path, name, round(probability, DIGITS))
        line: dict[str, object] = dict(zip(FIRST_COLUMNS, values, strict=True))
        if self._whole:
            rounded = (round(p, DIGITS) for p in prediction.probabilities)
            line["probabilities"] = dict(zip(self._classes, rounded, strict=True))
        print(json.dumps(line, ensure_ascii=False), file=self._stream)

    def close(self) -> None:
        _release(self._stream)


def _release(stream: IO[str]) -> None:
    stream.flush()
    # detach() keeps the byte stream open when this layer is garbage-collected.
    if isinstance(stream, _BorrowedStream):
        stream.detach()


class _ParquetWriter:
    """Write plain columns that any reader knows: strings for path and class, float32 for probabilities."""

    def __init__(self, stream: Any, classes: Sequence[str], whole: bool) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._classes, self._whole = classes, whole
        names = columns(classes, whole)
        self._schema = pa.schema([(n, pa.string() if i < 2 else pa.float32()) for i, n in enumerate(names)])
        self._writer = pq.ParquetWriter(stream, self._schema, compression="zstd")
        self._rows: list[tuple[object, ...]] = []

    def write(self, prediction: Prediction) -> None:
        name, probability = prediction.top(self._classes)
        self._rows.append(
            (prediction.path, name, probability, *(prediction.probabilities if self._whole else ()))
        )
        if len(self._rows) == ROW_GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            values = zip(*self._rows, strict=True)
            arrays = [pa.array(v, field.type) for v, field in zip(values, self._schema, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
            self._rows = []
