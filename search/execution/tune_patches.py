"""Teaches Ray Tune that a trial's process may be killed for lack of memory.

Ray's memory monitor ends processes with an error that Ray Tune (2.60) does not know: it gives up the whole run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.experiment import Trial


@contextmanager
def oom_kills_as_crashes() -> Iterator[None]:
    """Meanwhile Ray Tune takes such a process for one that died, in the memory monitor's words."""
    known = RayActorManager._actor_task_failed

    def failed(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        known(manager, tracked_actor_task=tracked_actor_task, exception=exception)

    asked = Trial._get_default_result_or_future

    def first_facts(trial: Any) -> dict[str, Any] | None:
        try:
            facts: dict[str, Any] | None = asked(trial)
        except OutOfMemoryError:
            facts = trial._default_result_or_future = None
        return facts

    RayActorManager._actor_task_failed = failed
    Trial._get_default_result_or_future = first_facts
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = known
        Trial._get_default_result_or_future = asked
