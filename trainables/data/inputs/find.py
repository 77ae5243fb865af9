"""Finds out what kind of input a user's ``--data`` is."""

from __future__ import annotations

import re
from pathlib import Path

from trainables.data.inputs.options import DIGITS, DataOptions
from trainables.data.inputs.source import DataSource, printable
from trainables.errors import DataError, UsageError

EXPECTED_DATA = "digits, a folder of images, or a Parquet or Arrow file"


def find_data_source(data: str, ours: Path, options: DataOptions) -> DataSource:
    """Open the input that ``data`` names.

    Args:
        data: ``digits``, a folder, or a file. A folder that is itself called digits is ``./digits``.
        ours: the folder where results go, which is no part of the input even if it lies inside it.
        options: which columns to take.

    Raises:
        UsageError: ``data`` is empty.
        DataError: it isn't there, or is nothing of the kind.
    """
    if not isinstance(data, str) or not data.strip():
        raise UsageError(f"data: expected {EXPECTED_DATA}, received {data!r}")
    if data == DIGITS:
        from trainables.modalities.image.digits import DigitsSource

        return DigitsSource()
    if re.match(r"[a-z][a-z0-9+.-]+://", data, re.IGNORECASE):
        raise DataError(
            f"data: expected {EXPECTED_DATA} on this machine, received the address {data!r}. Download it first."
        )
    path = _existing(data)
    try:
        return _folder(path, ours, options) if path.is_dir() else _file(path, options)
    except OSError as error:
        raise DataError(f"data: can't read {printable(path)}: {error.strerror or error}") from error


def _existing(data: str) -> Path:
    try:
        path = Path(data).expanduser()
        if path.exists():
            return path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"data: expected {EXPECTED_DATA}, received {data!r}: {error}") from error
    raise DataError(
        f"data: expected {EXPECTED_DATA}, received {printable(data)!r}, which doesn't exist ({_where(path)})"
    )


def _where(path: Path) -> str:
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return f"looked in {printable(parent)}"


def _folder(path: Path, ours: Path, options: DataOptions) -> DataSource:
    from trainables.data.inputs.table_files import table_files
    from trainables.data.inputs.tables import Tables
    from trainables.modalities.image.folders import ImageFolder

    files = table_files(path)
    return Tables(path, files, options) if files else ImageFolder(path, ours, options.unlabelled)


def _file(path: Path, options: DataOptions) -> DataSource:
    from trainables.data.inputs.table_files import TABLE_EXTENSIONS
    from trainables.data.inputs.tables import Tables

    if path.suffix.lower() not in TABLE_EXTENSIONS:
        raise DataError(
            f"data: expected {EXPECTED_DATA} ({', '.join(TABLE_EXTENSIONS)}), received the file {printable(path)!r}. "
            "Unpack an archive; put images into one folder per class."
        )
    return Tables(path, [(path, None)], options)
