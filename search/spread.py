"""Spreads calls over a search's engines; a call whose engine is gone is made again on another."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import count
from typing import Any, TypeVar

import ray
from ray.exceptions import ActorUnschedulableError, NodeDiedError, RayActorError

from search.session import Session
from trainables.errors import SearchError

ATTEMPTS = 3
"""How often a call may end its engine's process. A lost node counts not."""

LOOK_SECONDS = 0.5

Key = TypeVar("Key", bound=Hashable)
Call = tuple[str, tuple[Any, ...]]
"""The name of a method of the engine, and its arguments."""


def spread(
    session: Session, calls: Mapping[Key, Call], over: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Key, Any]]:
    """Make ``calls`` at once, engine after engine; hands out what each returns as soon as it is known.

    Where no node is left it waits for one. Ends early once ``over`` says so.

    Raises:
        SearchError: a call ended its engine's process again and again.
        ClusterError: the cluster is gone.
    """
    waiting, pending = list(calls), dict[Any, tuple[Key, Any]]()
    turn, died = count(), Counter[Key]()
    while (waiting or pending) and not over():
        session.refuse_lost()
        engines = session.engines
        while waiting and engines:
            key, engine = waiting.pop(0), engines[next(turn) % len(engines)]
            method, arguments = calls[key]
            pending[getattr(engine, method).remote(*arguments)] = key, engine
        if not pending:
            time.sleep(LOOK_SECONDS)
            continue
        for ready in ray.wait(list(pending), num_returns=1, timeout=LOOK_SECONDS)[0]:
            key, engine = pending.pop(ready)
            try:
                yield key, ray.get(ready)
            except (RayActorError, ActorUnschedulableError, NodeDiedError) as error:
                session.fleet.look()
                died[key] += any(engine is known for known in session.engines)
                if died[key] >= ATTEMPTS:
                    raise SearchError(
                        f"{calls[key][0]}: expected a process that lives, but it ended {ATTEMPTS} times: {error}"
                    ) from error
                waiting.append(key)
