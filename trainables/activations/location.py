"""Where a machine's cache is and how large it may grow, unless somebody says otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from trainables.errors import UsageError

CACHE_VARIABLE = "UNFREEZE_CACHE"
"""Environment variable that names the cache's directory; ``off`` for none on disk."""

MAX_BYTES = 10 * 10**9
MAX_DISK_SHARE = 0.2
"""The budget: this many bytes, or this share of what the disk has left for it, whichever is less."""


def default_directory(environment: Mapping[str, str] = os.environ, wanted: str | None = None) -> Path | None:
    """``wanted`` or ``$UNFREEZE_CACHE`` or ``~/.cache/unfreeze/activations``; None for ``off``, or without a home.

    Raises:
        UsageError: the variable names a home that does not exist.
    """
    named = wanted or environment.get(CACHE_VARIABLE, "").strip()
    if named.lower() == "off":
        return None
    try:
        return Path(named or "~/.cache/unfreeze/activations").expanduser().absolute()
    except RuntimeError:
        if named:
            raise UsageError(f"{CACHE_VARIABLE}: expected a directory or 'off', received {named!r}") from None
        return None  # a user without a home, as in some containers


def default_budget(directory: Path) -> int:
    """Bytes that a cache in ``directory``, which need not exist yet, may take; what it takes already counts as free.

    0 where that can't be found out.
    """
    try:
        existing = next(p for p in (directory, *directory.parents) if p.is_dir())
        own = sum(p.stat().st_size for p in directory.glob("*.arrow")) if existing == directory else 0
        return min(MAX_BYTES, int(MAX_DISK_SHARE * (shutil.disk_usage(existing).free + own)))
    except (OSError, StopIteration):
        return 0
