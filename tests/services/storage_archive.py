"""Packs the storage of a search into one small file, and unpacks it in any folder.

MLflow and the ledgers keep absolute paths: artifact locations, the storage, the tracking URI. In the archive these
paths begin with :data:`PLACEHOLDER`; unpacking replaces it by the folder where the files are now.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tarfile
from pathlib import Path

PLACEHOLDER = "/unfreeze-test-storage"
"""Stands for the parent folder of the storage in the archive."""

TEXTS = {".json", ".jsonl", ".md", ".yaml", ".txt", ""}
"""Suffixes of text files that may hold a path; ``MLmodel`` has none."""


def pack(folder: Path, archive: Path) -> None:
    """Write all files below ``folder`` into ``archive`` (``.tar.xz``). Paths in ``folder`` are changed in place.

    Owners, modes and times are left out, so that they do not depend on the machine.
    """
    replace_prefix(folder, str(folder), PLACEHOLDER)
    with tarfile.open(archive, "w:xz", preset=9 | (1 << 31)) as tar:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = tarfile.TarInfo(file.relative_to(folder).as_posix())
            entry.size, entry.mode = file.stat().st_size, 0o644
            with file.open("rb") as stream:
                tar.addfile(entry, stream)


def unpack(archive: Path, folder: Path) -> None:
    """Extract what :func:`pack` wrote into ``folder``, and let all stored paths point there."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    replace_prefix(folder, PLACEHOLDER, str(folder))


def replace_prefix(folder: Path, old: str, new: str) -> None:
    """Replace the path ``old`` by ``new`` in every SQLite database and small text file below ``folder``."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.suffix == ".db":
            _replace_in_database(file, old, new)
        elif file.suffix in TEXTS:
            _replace_in_text(file, old, new)


def _replace_in_text(file: Path, old: str, new: str) -> None:
    with contextlib.suppress(UnicodeDecodeError):  # a file without a suffix may be binary
        text = file.read_text(encoding="utf-8")
        if old in text:
            file.write_text(text.replace(old, new), encoding="utf-8")


def _replace_in_database(file: Path, old: str, new: str) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for _, column, kind, *_ in database.execute(f'PRAGMA table_info("{table}")').fetchall():
                if any(word in kind.upper() for word in ("CHAR", "TEXT", "CLOB")):
                    database.execute(
                        f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE "{column}" LIKE ?',
                        (old, new, f"%{old}%"),
                    )
        # A write-ahead log must be emptied into the database: it would be packed without its index.
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("VACUUM")
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{file}{suffix}").unlink()
