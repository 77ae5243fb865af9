"""Failpoints and faults that tests inject into the driver or a trial, to prove that no result is lost and no other
trial affected.

Both kinds are requested by environment variables, which reach the processes that a search starts. Without them the
functions do nothing.

The driver: with ``UNFREEZE_KILL_AT=NAME`` or ``NAME:N`` the process kills itself, as ``kill -9`` would, when it reaches
the failpoint of that name for the first or Nth time (:func:`failpoint`).

Trials: ``UNFREEZE_TRIAL_FAULTS`` holds words of the form ``TRIAL:FAULT``, as in ``1:kill 4:memory>16``. Each time that
the trial is about to train an epoch, it kills its process (``kill``), never ends (``hang``), or runs out of memory
(``memory``; ``memory>16`` with batches of more than 16 images only) (:func:`inject_fault`).
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter

KILL_AT_VARIABLE = "UNFREEZE_KILL_AT"

TRIAL_FAULTS_VARIABLE = "UNFREEZE_TRIAL_FAULTS"

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
"""Names of the failpoints, in the order of a search. Each lies between two writes that belong together:

- ``prepared``: the data is ready, and there is no trial yet.
- ``suggested``: a trial is in the ledger, and Ray Tune has not started it.
- ``reported``: an epoch is in the ledger, and not in MLflow.
- ``ending``, ``ended``: before and after a trial's end is written into the ledger.
- ``run-created``, ``run-delivered``: a run exists in MLflow; a run is complete there.
- ``retrained``: one of the winner's trainings is saved.
- ``measured``: the test data was read, and the outcome is not in the ledger.
- ``version-created``: a model version exists in the registry, and the ledger has no record of it.
- ``registered``: the version is recorded in the ledger.
- ``finished``: everything is delivered.
- ``champion-moved``: in a promotion or rollback, the alias was moved, and the history has no record of it.
"""

_counts: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Kill this process if the environment requests it at this point.

    Args:
        name: one of :data:`FAILPOINTS`.

    Raises:
        ValueError: the environment names another one.
    """
    requested = os.environ.get(KILL_AT_VARIABLE)
    if not requested:
        return
    point, _, count = requested.partition(":")
    if point not in FAILPOINTS:
        raise ValueError(f"{KILL_AT_VARIABLE}: expected one of {', '.join(FAILPOINTS)}, received {point!r}")
    _counts[name] += 1
    if name == point and _counts[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def inject_fault(trial: str, batch_size: int) -> None:
    """Let a trial fail as the environment requests.

    Args:
        trial: the trial's name, which ends with a dash and the trial's number.
        batch_size: images in a batch of this trial.

    Raises:
        MemoryError: requested for this trial and batch size.
        ValueError: the environment names another kind of fault.
    """
    for word in os.environ.get(TRIAL_FAULTS_VARIABLE, "").split():
        number, _, fault = word.partition(":")
        if number != trial.rpartition("-")[2]:
            continue
        kind, _, largest = fault.partition(">")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "hang":
            threading.Event().wait()
        elif kind == "memory":
            if batch_size > int(largest or 0):
                raise MemoryError(f"{TRIAL_FAULTS_VARIABLE} requests it")
        else:
            raise ValueError(
                f"{TRIAL_FAULTS_VARIABLE}: expected kill, hang, memory or memory>N, received {word!r}"
            )
