"""A declared place where a trial can be made to do harm, so that tests can prove that it harms nobody else.

``UNFREEZE_TRIAL_FAULTS`` in the environment holds words of the form ``TRIAL:FAULT``, as in ``1:kill 4:memory>16``.
Whenever that trial is about to train an epoch it kills its process (``kill``), never comes to an end (``hang``), or
finds no memory (``memory``; ``memory>16`` with batches of more than 16 images). Without, :func:`suffer` does nothing.
"""

from __future__ import annotations

import os
import signal
import threading

VARIABLE = "UNFREEZE_TRIAL_FAULTS"


def suffer(trial: str, batch_size: int) -> None:
    """Do what the environment asks for; ``trial`` ends with a dash and the trial's number."""
    for word in os.environ.get(VARIABLE, "").split():
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
                raise MemoryError(f"{VARIABLE} asks for it")
        else:
            raise ValueError(f"{VARIABLE}: expected kill, hang, memory or memory>N, received {word!r}")
