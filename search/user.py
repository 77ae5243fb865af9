"""Who runs this."""

from __future__ import annotations

import getpass


def user_name() -> str:
    """The login name; ``unknown`` where the system knows none, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"
