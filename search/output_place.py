"""Where a command is to write: looked at before any work is done."""

from __future__ import annotations

import uuid
from pathlib import Path

from trainables.errors import UsageError


def expect_writable(output: str, overwrite: bool, folders: bool = False) -> Path:
    """The path of ``--output``, known to be free and in a folder that can be written, which is made.

    Args:
        overwrite: whether what is there may be replaced. folders: also if it is a folder.

    Raises:
        UsageError: it is not.
    """
    target = Path(output)
    if target.exists() and not (target.is_file() or folders):
        raise UsageError(f"--output: expected a file, received {output!r}, which is none")
    if target.exists() and not overwrite:
        raise UsageError(f"--output: {output!r} is there already; --overwrite replaces it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        probe = target.with_name(f".{uuid.uuid4().hex}.tmp")
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise UsageError(
            f"--output: expected a path that can be written, received {output!r}: {error.strerror}"
        ) from error
    return target
