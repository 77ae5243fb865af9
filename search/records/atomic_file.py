"""Write files atomically: a reader sees the old content or the new content, never a part of it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary file in the same folder, flush it to disk and rename it to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The temporary file is in the same folder: a rename is atomic only within one file system. The name is cut
    # since file names are limited to 255 bytes.
    temporary = path.with_name(f".{path.name[:40]}-{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            # Without fsync, a power failure after the rename could leave an empty file under the final name.
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` as UTF-8 text, atomically as :func:`write_bytes` does."""
    write_bytes(path, content.encode())
