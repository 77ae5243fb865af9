"""Reads the cells of an image column: bytes, paths, or structs of both as Hugging Face ``datasets`` writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainables.data.inputs.columns import image_fields, is_bytes
from trainables.data.inputs.source import Encoded
from trainables.data.inputs.table_files import TableFile


def encoded_images(array: Any, folder: Path) -> Iterator[Encoded | None]:
    """Yield each cell of a pyarrow Array as an encoded image, or None if the cell is empty.

    Args:
        array: byte strings, paths, or structs with ``bytes`` or ``path``.
        folder: base of relative paths.
    """
    for cell in array:
        yield _image(cell, folder)


def paths_in(table: TableFile, column: str) -> Iterator[Path]:
    """Yield the image files that ``column`` refers to; none if the first row contains an image itself.

    Only the first row is checked, so that a fingerprint stays cheap: the other rows of such a table are not read.
    """
    if is_bytes(table.schema.field(column).type):
        return
    for number, array in enumerate(table.arrays(column)):
        images = encoded_images(array, table.path.parent)
        if number == 0 and not isinstance(next(encoded_images(array, table.path.parent), None), Path):
            return
        yield from (image for image in images if isinstance(image, Path))


def _image(cell: Any, folder: Path) -> Encoded | None:
    if not cell.is_valid:
        return None
    if isinstance(cell, pa.StructScalar):
        parts = [cell[name] for name in image_fields(cell.type)]
        return next((image for part in parts if (image := _image(part, folder)) is not None), None)
    if is_bytes(cell.type):
        return memoryview(cell.as_buffer())
    text = cell.as_py()
    return folder / text if text else None
