"""Opens the data source that a user names with ``--data``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from trainables.data.inputs.options import DataOptions
from trainables.data.inputs.source import DataSource, printable
from trainables.errors import DataError, UsageError

EXPECTED_DATA = "digits, a folder of images, or a Parquet or Arrow file"


def find_data_source(
    data: str,
    options: DataOptions,
    *,
    built_in: Mapping[str, Callable[[], DataSource]],
    open_folder: Callable[[Path], DataSource],
) -> DataSource:
    """Open the data source that ``data`` names.

    Args:
        data: a name in ``built_in``, a folder, or a file. The path of a folder called like a built-in source starts
            with ``./``.
        options: which columns to read.
        built_in: sources that have a name and no path.
        open_folder: opens a folder that holds no table files.

    Raises:
        UsageError: ``data`` is empty.
        DataError: the path does not exist, can't be read, or is of another kind.
    """
    if not isinstance(data, str) or not data.strip():
        raise UsageError(f"data: expected {EXPECTED_DATA}, received {data!r}")
    if data in built_in:
        return built_in[data]()
    if re.match(r"[a-z][a-z0-9+.-]+://", data, re.IGNORECASE):
        raise DataError(
            f"data: expected {EXPECTED_DATA} on this machine, received the address {data!r}. Download it first."
        )
    path = _existing(data)
    # The folder or file may still be unreadable, or vanish meanwhile.
    try:
        return _folder(path, options, open_folder) if path.is_dir() else _file(path, options)
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


def _folder(path: Path, options: DataOptions, open_folder: Callable[[Path], DataSource]) -> DataSource:
    from trainables.data.inputs.table_files import table_files
    from trainables.data.inputs.tables import Tables

    files = table_files(path)
    return Tables(path, files, options) if files else open_folder(path)


def _file(path: Path, options: DataOptions) -> DataSource:
    from trainables.data.inputs.table_files import TABLE_EXTENSIONS
    from trainables.data.inputs.tables import Tables

    if path.suffix.lower() not in TABLE_EXTENSIONS:
        raise DataError(
            f"data: expected {EXPECTED_DATA} ({', '.join(TABLE_EXTENSIONS)}), received the file {printable(path)!r}. "
            "Unpack an archive; put images into one folder per class."
        )
    return Tables(path, [(path, None)], options)
