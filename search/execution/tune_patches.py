"""The only module that uses private API of Ray Tune (that of Ray itself is in
:mod:`search.execution.cluster.ray_internals`).

Ray's memory monitor ends processes with an :class:`OutOfMemoryError`. Ray Tune (2.60) does not know that error and
gives up the whole run, with all trials. The patch translates it into the error of a process that died, which Tune
handles trial by trial.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.exceptions import OutOfMemoryError, RayActorError

from search.execution.cluster.ray_internals import private_api

_FAILED = ("self", "tracked_actor_task", "exception")
_DEFAULT_RESULT = ("self",)
"""Parameters of the two patched methods in the tested versions of Ray."""


def require_trial_state() -> None:
    """Check what :func:`actor_of` and :func:`error_file` read, before a search depends on it in the middle of a run.

    Raises:
        ClusterError: the installed Ray has changed it.
    """
    with private_api("Trial.temporary_state.ray_actor and Trial.error_file"):
        from ray.tune.experiment.trial import Trial, _TemporaryTrialState

        _ = (_TemporaryTrialState().ray_actor, Trial.error_file)


def actor_of(trial: Any) -> Any | None:
    """Return the handle of the actor that runs a trial of Tune; None if it has none at the moment."""
    with private_api("Trial.temporary_state.ray_actor"):
        return trial.temporary_state.ray_actor


def error_file(trial: Any) -> Path | None:
    """Return the file into which Tune writes a trial's error; None if the trial has not failed.

    Tune's own ``Trial.get_error`` looks where the file will be later, after it has been copied to the storage.
    """
    with private_api("Trial.error_file"):
        name = trial.error_file
    return None if name is None else Path(name)


@contextmanager
def oom_kills_as_crashes() -> Iterator[None]:
    """Make Tune treat a process that the memory monitor killed as one that crashed, with the monitor's message.

    Raises:
        ClusterError: the installed Ray has other private methods than the tested versions.
    """
    with private_api("RayActorManager._actor_task_failed and Trial._get_default_result_or_future"):
        from ray.air.execution._internal.actor_manager import RayActorManager
        from ray.tune.experiment import Trial

        task_failed = _checked(RayActorManager._actor_task_failed, _FAILED)
        default_result = _checked(Trial._get_default_result_or_future, _DEFAULT_RESULT)

    def patched_task_failed(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        task_failed(manager, tracked_actor_task=tracked_actor_task, exception=exception)

    def patched_default_result(trial: Any) -> dict[str, Any] | None:
        try:
            facts: dict[str, Any] | None = default_result(trial)
        except OutOfMemoryError:
            # The process was killed while it started. Tune would ask again and fail again unless the future is gone.
            facts = trial._default_result_or_future = None
        return facts

    RayActorManager._actor_task_failed = patched_task_failed
    Trial._get_default_result_or_future = patched_default_result
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = task_failed
        Trial._get_default_result_or_future = default_result


def _checked(method: Callable[..., Any], parameters: tuple[str, ...]) -> Callable[..., Any]:
    """Return the method if it has these parameters; a patch of another signature would fail in the middle of a run."""
    found = tuple(inspect.signature(method).parameters)
    if found != parameters:
        raise TypeError(f"expected parameters {parameters}, received {found}")
    return method
