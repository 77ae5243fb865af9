"""What connects the program with the shell that runs it: environment variables and exit codes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import IntEnum

from trainables.errors import UsageError

DEFAULT_STORAGE = "./unfreeze-runs"
"""Where searches keep their files if neither an option nor a variable names a folder."""

OPTION_VARIABLES: Mapping[str, str] = {
    "storage": "UNFREEZE_STORAGE",
    "tracking_uri": "UNFREEZE_TRACKING_URI",
    "ledger": "UNFREEZE_LEDGER",
}
"""Variables that stand for options, by field of SearchConfig. The administrator of a cluster sets them once for all
users. An option on the command line or in a config file overrides its variable."""

SERVICE_PATIENCE = "UNFREEZE_SERVICE_PATIENCE"

VARIABLES: Mapping[str, str] = {
    "UNFREEZE_STORAGE": "Used for `--storage` if the option is not given.",
    "UNFREEZE_TRACKING_URI": "Used for `--tracking-uri` if the option is not given.",
    "UNFREEZE_LEDGER": "Used for `--ledger` if the option is not given.",
    "UNFREEZE_CACHE": "Used for `--cache` if the option is not given: a folder, or `off`. It is read on every machine.",
    SERVICE_PATIENCE: "Seconds to wait for an unreachable ledger database, or for MLflow at the end of a search "
    "(default: 60).",
    "UNFREEZE_DOCTOR_PATIENCE": "Seconds that `unfreeze doctor` waits for TensorFlow to start (default: 45).",
    "UNFREEZE_KILL_AT": "For tests: the point at which the driver kills itself (`search/fault_injection.py`).",
    "UNFREEZE_TRIAL_FAULTS": "For tests: the faults that trials inject (`search/fault_injection.py`).",
}
"""All environment variables that the program reads for itself, with their meaning for docs."""


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130

    @property
    def description(self) -> str:
        """The meaning of the code, for docs."""
        return {
            ExitCode.DONE: "The command did what was asked.",
            ExitCode.FAILED: "The command failed, or a check that it makes did not pass; the message gives the reason.",
            ExitCode.USAGE: "An argument, a config file or an environment variable is wrong.",
            ExitCode.INTERRUPTED: "Ctrl-C or SIGTERM interrupted the command. What a search had done is kept.",
        }[self]


def options_from_environment() -> dict[str, str]:
    """Return the options that environment variables set, by field of SearchConfig. Empty variables count as unset."""
    return {name: os.environ[key] for name, key in OPTION_VARIABLES.items() if os.environ.get(key)}


def service_patience() -> float:
    """Return for how many seconds the ledger's database, or MLflow at the end of a search, may be unreachable.

    Raises:
        UsageError: the variable's value is not a number above 0.
    """
    given = os.environ.get(SERVICE_PATIENCE) or "60"
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"{SERVICE_PATIENCE}: expected seconds, a number above 0, received {given!r}")
    return seconds
