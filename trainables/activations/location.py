"""Chooses the default directory and size of the cache on disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from trainables.errors import UsageError

CACHE_VARIABLE = "UNFREEZE_CACHE"
"""Environment variable with the directory of the cache; ``off`` disables the cache on disk."""

MAX_BYTES = 10 * 10**9
MAX_DISK_SHARE = 0.2
"""The default budget is the smaller of MAX_BYTES and this share of the disk's free space."""


def default_directory(environment: Mapping[str, str] = os.environ, wanted: str | None = None) -> Path | None:
    """Return ``wanted``, else ``$UNFREEZE_CACHE``, else ``~/.cache/unfreeze/activations``.

    The result is None for ``off``, and for a user without a home directory.

    Raises:
        UsageError: the variable names a home directory that does not exist.
    """
    named = wanted or environment.get(CACHE_VARIABLE, "").strip()
    if named.lower() == "off":
        return None
    try:
        return Path(named or "~/.cache/unfreeze/activations").expanduser().absolute()
    except RuntimeError:
        if named:
            raise UsageError(f"{CACHE_VARIABLE}: expected a directory or 'off', received {named!r}") from None
        return None  # a user without a home directory, as in some containers


def default_cache_budget(directory: Path) -> int:
    """Return the bytes that a cache in ``directory`` may take; 0 if the free space is unknown.

    The directory need not exist. Bytes that the cache already takes count as free, so that the budget stays the same.
    """
    try:
        existing = next(p for p in (directory, *directory.parents) if p.is_dir())
        own = sum(p.stat().st_size for p in directory.glob("*.arrow")) if existing == directory else 0
        return min(MAX_BYTES, int(MAX_DISK_SHARE * (shutil.disk_usage(existing).free + own)))
    except (OSError, StopIteration):
        return 0
