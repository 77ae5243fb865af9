"""Read the images of ``unfreeze predict`` from files, folders and Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainables.data.inputs.source import Encoded, printable
from trainables.errors import DataError, UsageError
from trainables.modalities.image.image_files import SkippedFiles, holds_images, images_below

_IMAGE_COLUMN_NAMES = ("image", "img", "images", "picture", "photo")


def images_in(paths: Sequence[str], image_column: str | None = None) -> Iterator[tuple[str, Encoded]]:
    """Yield each image with its origin: a path, or a Parquet file and the number of the row, from 0.

    Raises:
        UsageError: a path does not exist; raised before the first image is read.
        DataError: a folder has no images, or a Parquet file has no column of images.
    """
    files = [Path(path) for path in paths]
    for file in files:
        if not file.exists():
            raise UsageError(
                f"PATH: expected an image, a folder or a Parquet file, received {str(file)!r}: no such file"
            )
    return (pair for file in files for pair in _images(file, image_column))


def count_images(paths: Sequence[str]) -> int:
    """Count the images without opening them; 0 if they cannot be counted."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 0
    try:
        for file in map(Path, paths):
            if file.is_dir():
                count += sum(1 for _ in images_below(file, SkippedFiles()))
            else:
                count += pq.read_metadata(file).num_rows if file.suffix.lower() == ".parquet" else 1
    except (pa.ArrowException, OSError, DataError):  # reported when the images are read
        return 0
    return count


def _images(file: Path, image_column: str | None) -> Iterator[tuple[str, Encoded]]:
    if file.is_dir():
        yield from _folder(file)
    elif file.suffix.lower() == ".parquet":
        yield from _parquet(file, image_column)
    else:
        yield printable(file), file


def _folder(folder: Path) -> Iterator[tuple[str, Encoded]]:
    if not holds_images(folder):
        raise DataError(
            f"PATH: expected a folder with images in it, received {str(folder)!r}, which has none"
        )
    for found in images_below(folder, SkippedFiles()):
        yield printable(Path(found.path)), Path(found.path)


def _parquet(file: Path, image_column: str | None) -> Iterator[tuple[str, Encoded]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        table = pq.ParquetFile(file)
        column = _column(table.schema_arrow, image_column, file)
        for batch in table.iter_batches(batch_size=256, columns=[column]):
            for value in batch.column(0).to_pylist():
                yield f"{printable(file)}#{row}", _encoded(value, file)
                row += 1
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"PATH: expected a Parquet file, received {str(file)!r}: {error}") from error


def _column(schema: Any, wanted: str | None, file: Path) -> str:
    import pyarrow.types as types

    names = list(schema.names)
    if wanted is not None:
        if wanted not in names:
            raise UsageError(
                f"--image-column: expected one of {', '.join(names)} in {str(file)!r}, received {wanted!r}"
            )
        return wanted
    kinds = {field.name: field.type for field in schema}
    fit = [
        n
        for n, kind in kinds.items()
        if types.is_struct(kind) or types.is_binary(kind) or n.lower() in _IMAGE_COLUMN_NAMES
    ]
    if len(fit) != 1:
        raise UsageError(
            f"--image-column: expected a column of images; {str(file)!r} has the columns {', '.join(names)}"
        )
    return str(fit[0])


def _encoded(value: Any, file: Path) -> Encoded:
    """Return an image given as bytes, as a relative path, or as in Hugging Face datasets (bytes and path)."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        return file.parent / value
    return value if isinstance(value, bytes) else b""
