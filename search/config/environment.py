"""Options that whoever runs a cluster sets once for all who use it, as environment variables."""

from __future__ import annotations

import os

from trainables.errors import UsageError

OPTION_VARIABLES = {
    "storage": "UNFREEZE_STORAGE",
    "tracking_uri": "UNFREEZE_TRACKING_URI",
    "ledger": "UNFREEZE_LEDGER",
}
"""By field of SearchConfig. An option of the command line or of a config file goes before its variable."""


SERVICE_PATIENCE = "UNFREEZE_SERVICE_PATIENCE"
"""Seconds, 60 if it is not set: see :func:`service_patience`."""


def options_from_environment() -> dict[str, str]:
    """The values that are set, by field of SearchConfig."""
    return {name: os.environ[key] for name, key in OPTION_VARIABLES.items() if os.environ.get(key)}


def service_patience() -> float:
    """Seconds for which the ledger's database, or at the end MLflow, may be away before that is an error.

    Raises:
        UsageError: the variable is no such number.
    """
    given = os.environ.get(SERVICE_PATIENCE) or "60"
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"{SERVICE_PATIENCE}: expected seconds, a number above 0, received {given!r}")
    return seconds
