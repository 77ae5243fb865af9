"""Options that whoever runs a cluster sets once for all who use it, as environment variables."""

from __future__ import annotations

import os

VARIABLES = {
    "storage": "UNFREEZE_STORAGE",
    "tracking_uri": "UNFREEZE_TRACKING_URI",
    "ledger": "UNFREEZE_LEDGER",
}
"""By field of SearchConfig. An option of the command line or of a config file goes before its variable."""


def from_environment() -> dict[str, str]:
    """The values that are set, by field of SearchConfig."""
    return {name: os.environ[key] for name, key in VARIABLES.items() if os.environ.get(key)}
