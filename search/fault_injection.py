"""Declared places where the driver can be made to die, so that tests can prove that nothing is lost there.

With ``UNFREEZE_KILL_AT=NAME`` or ``NAME:N`` in its environment the process kills itself, as by ``kill -9``, when it
comes to the place for the first or Nth time. Without, :func:`reached` does nothing.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "UNFREEZE_KILL_AT"

SEAMS = (
    "prepared",
    "suggested",
    "reported",
    "ending",
    "ended",
    "run-created",
    "run-delivered",
    "retrained",
    "measured",
    "version-created",
    "registered",
    "finished",
    "champion-moved",
)
"""In the order of a search: data ready; a trial in the ledger, not yet in Ray Tune; an epoch in the ledger; before and
after a trial's end is in the ledger; a run made in MLflow, and filled; one of the winner's trainings kept; test data
read; a model version made; the version known to the ledger; all delivered. And in a promotion or rollback: the alias
has moved, the history does not know that yet."""

_counts: Counter[str] = Counter()


def reached(name: str) -> None:
    """Die here if that is what the environment asks for."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    place, _, count = wanted.partition(":")
    if place not in SEAMS:
        raise ValueError(f"{VARIABLE}: expected one of {', '.join(SEAMS)}, received {place!r}")
    _counts[name] += 1
    if name == place and _counts[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
