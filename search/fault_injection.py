"""Declared places where the driver can be made to die, so that tests can prove that nothing is lost there.

With ``UNFREEZE_KILL_AT=NAME`` or ``NAME:N`` in its environment the process kills itself, as by ``kill -9``, when it
comes to the place for the first or Nth time. Without, :func:`failpoint` does nothing.

A declared place where a trial can be made to do harm, so that tests can prove that it harms nobody else.

``UNFREEZE_TRIAL_FAULTS`` in the environment holds words of the form ``TRIAL:FAULT``, as in ``1:kill 4:memory>16``.
Whenever that trial is about to train an epoch it kills its process (``kill``), never comes to an end (``hang``), or
finds no memory (``memory``; ``memory>16`` with batches of more than 16 images). Without, :func:`inject_fault`
does nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter

TRIAL_FAULTS_VARIABLE = "UNFREEZE_TRIAL_FAULTS"


def inject_fault(trial: str, batch_size: int) -> None:
    """Do what the environment asks for; ``trial`` ends with a dash and the trial's number."""
    for word in os.environ.get(TRIAL_FAULTS_VARIABLE, "").split():
        number, _, fault = word.partition(":")
        if number != trial.rpartition("-")[2]:
            continue
        kind, _, least = fault.partition(">")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "hang":
            threading.Event().wait()
        elif kind == "memory":
            if batch_size > int(least or 0):
                raise MemoryError(f"{TRIAL_FAULTS_VARIABLE} asks for it")
        else:
            raise ValueError(
                f"{TRIAL_FAULTS_VARIABLE}: expected kill, hang, memory or memory>N, received {word!r}"
            )


KILL_AT_VARIABLE = "UNFREEZE_KILL_AT"

FAILPOINTS = (
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


def failpoint(name: str) -> None:
    """Die here if that is what the environment asks for."""
    wanted = os.environ.get(KILL_AT_VARIABLE)
    if not wanted:
        return
    place, _, count = wanted.partition(":")
    if place not in FAILPOINTS:
        raise ValueError(f"{KILL_AT_VARIABLE}: expected one of {', '.join(FAILPOINTS)}, received {place!r}")
    _counts[name] += 1
    if name == place and _counts[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
