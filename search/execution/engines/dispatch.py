"""Spreads calls over a search's engines; a call whose engine is gone is made again on another."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import count
from typing import Any, TypeVar

import ray
from ray.exceptions import ActorUnschedulableError, OutOfMemoryError, RayActorError, WorkerCrashedError

from search.execution.engines.engine_actor import call_local_engine
from search.execution.engines.engine_client import EngineLost
from search.execution.engines.session import Session
from trainables.errors import SearchError

MAX_ATTEMPTS = 5
"""How often a call may end its engine's process."""

POLL_SECONDS = 0.5

PROCESS_LOST_ERRORS = EngineLost, RayActorError, ActorUnschedulableError, WorkerCrashedError, OutOfMemoryError
"""How Ray says that the process of a call is gone."""

Key = TypeVar("Key", bound=Hashable)
EngineCall = tuple[str, tuple[Any, ...]]
"""The name of a method of the engine, and its arguments."""


def dispatch(
    session: Session, calls: Mapping[Key, EngineCall], over: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Key, Any]]:
    """Make ``calls`` at once; hands out what each returns as soon as it is known.

    On a cluster each asks Ray for what a trial asks for and is made where that is free: an autoscaler sees that
    something is wanted, and what is lost with its node is made again on another one. Ends early once ``over`` says so.

    Raises:
        SearchError: a call ended its engine's process again and again.
        ClusterError: the cluster is gone.
    """
    died, turn = Counter[Key](), count()
    pending = {_begin(session, call, next(turn)): key for key, call in calls.items()}
    while pending and not over():
        session.refuse_lost()
        for ready in ray.wait(list(pending), num_returns=1, timeout=POLL_SECONDS)[0]:
            key = pending.pop(ready)
            try:
                yield key, ray.get(ready)
            except PROCESS_LOST_ERRORS as error:
                died[key] += 1
                if died[key] >= MAX_ATTEMPTS:
                    raise SearchError(
                        f"{calls[key][0]}: expected a process that lives, but it ended {MAX_ATTEMPTS} times: {error}"
                    ) from error
                time.sleep(POLL_SECONDS)
                pending[_begin(session, calls[key], next(turn))] = key


def _begin(session: Session, call: EngineCall, turn: int) -> Any:
    method, arguments = call
    if not session.joined:  # one machine has nowhere else to go
        return getattr(session.engines[turn % len(session.engines)], method).remote(*arguments)
    cpus, gpus, _ = session.share
    task = ray.remote(call_local_engine).options(num_cpus=cpus, num_gpus=gpus, max_retries=-1)
    return task.remote(session.describe(), method, *arguments)
