"""Spreads jobs over the engines of a session and repeats those whose engine was lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import count
from typing import Any, TypeVar

import ray
from ray.exceptions import ActorUnschedulableError, OutOfMemoryError, RayActorError, WorkerCrashedError

from search.execution.engines.engine_actor import run_on_local_engine
from search.execution.engines.engine_client import EngineLost
from search.execution.engines.jobs import Job
from search.execution.engines.session import Session
from trainables.errors import SearchError

MAX_ATTEMPTS = 5
"""Number of processes that one job may end before the search gives up."""

POLL_SECONDS = 0.5
"""Time between two checks of whether the cluster is gone or the caller wants to stop."""

PROCESS_LOST_ERRORS = EngineLost, RayActorError, ActorUnschedulableError, WorkerCrashedError, OutOfMemoryError
"""The errors by which Ray reports that the process of a job is gone. An error that the job itself raises is none."""

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


def dispatch(
    session: Session, jobs: Mapping[Key, Job[Result]], stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Key, Result]]:
    """Start all jobs at once and yield each result as soon as it is known.

    On a cluster each job requests from Ray what a trial requests and runs where that is free: an autoscaler thus sees
    the demand, and a job that is lost with its node is repeated on another node.

    Args:
        session: whose engines run the jobs.
        jobs: by a key of the caller's choice.
        stop: asked twice a second; True ends the iteration early.

    Raises:
        SearchError: a job ended its engine's process :data:`MAX_ATTEMPTS` times.
        ClusterError: the cluster is gone.
    """
    died, engine_indices = Counter[Key](), count()
    pending = {_submit(session, job, next(engine_indices)): key for key, job in jobs.items()}
    while pending and not stop():
        session.require_cluster()  # without its head, a cluster's answers never come
        for ready in ray.wait(list(pending), num_returns=1, timeout=POLL_SECONDS)[0]:
            key = pending.pop(ready)
            try:
                yield key, ray.get(ready)
            except PROCESS_LOST_ERRORS as error:
                died[key] += 1
                if died[key] >= MAX_ATTEMPTS:
                    raise SearchError(
                        f"{type(jobs[key]).__name__}: expected a process that lives, but it ended {MAX_ATTEMPTS} "
                        f"times: {error}"
                    ) from error
                time.sleep(POLL_SECONDS)  # Ray needs a moment to restart the engine
                # The next engine in turn: the one that has just died may not be back yet.
                pending[_submit(session, jobs[key], next(engine_indices))] = key


def _submit(session: Session, job: Job[Any], engine_index: int) -> Any:
    spec = session.spec
    if not spec.joined:  # the only machine is this one, so there is nothing for Ray to place
        return session.engines[engine_index % len(session.engines)].run.remote(job)
    cpus, gpus = spec.resources.cpus_per_trial, spec.resources.gpus_per_trial
    # Ray repeats a task whose node is lost by itself; MAX_ATTEMPTS limits what Ray reports as an error.
    task = ray.remote(run_on_local_engine).options(num_cpus=cpus, num_gpus=gpus, max_retries=-1)
    return task.remote(spec, job)
