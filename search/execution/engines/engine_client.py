"""Calls an engine from a trial actor, and finds out why an engine stopped answering."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError

from search.execution.cluster.oom_kills import kernel_oom_kills, ray_oom_message
from search.execution.engines.engine import Engine
from search.execution.engines.messages import EngineIdentity
from search.execution.engines.trials import UnknownTrial

START_TIMEOUT_SECONDS = 600.0
"""Time that an engine may take to start: importing TensorFlow from a busy network disk can take minutes."""

RETRY_SECONDS = 0.2
"""Pause between two attempts to reach an engine that Ray is restarting."""

ENGINE_DIED, ENGINE_OUT_OF_MEMORY, ENGINE_HUNG = ENGINE_LOSS_REASONS = (
    "engine_died",
    "engine_memory",
    "engine_silent",
)
"""The process died; it was killed for lack of memory; it did not answer in time, so the trial actor killed it."""


class EngineLost(Exception):
    """Raised when an engine cannot continue a trial; ``reason`` is one of :data:`ENGINE_LOSS_REASONS`."""

    def __init__(self, reason: str, words: str = "") -> None:
        super().__init__(words)
        self.reason = reason


class Deadline:
    """A time limit, in seconds from now, that several calls share; None for no limit."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline; never zero or less, which Ray would take for an error."""
        return None if self._end is None else max(0.001, self._end - time.monotonic())


class SharedEngine:
    """The engine of this node, which other trials use too. Ray restarts it when its process dies.

    Attributes:
        instance: name of the engine's process (:class:`.EngineIdentity`); None before :meth:`wait_until_ready`.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.instance: str | None = None
        self._pid = self._oom_kills = 0

    def wait_until_ready(self) -> None:
        """Wait until the engine has started.

        Raises:
            EngineLost: the engine does not start.
        """
        self._oom_kills, end = kernel_oom_kills(), time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                identity: EngineIdentity = ray.get(self._handle.ready.remote(), timeout=START_TIMEOUT_SECONDS)
            except (RayActorError, GetTimeoutError) as error:
                # While Ray restarts a dead engine, calls fail at once with ActorUnavailableError; all else is final.
                if not isinstance(error, ActorUnavailableError) or time.monotonic() > end:
                    raise EngineLost(ENGINE_DIED, f"the engine does not start: {error}") from error
                time.sleep(RETRY_SECONDS)
            else:
                self.instance, self._pid = identity.instance, identity.pid
                return

    def call(self, method: str, *arguments: Any, seconds: float | None = None) -> Any:
        """Call a method of the engine and return its result.

        Raises:
            EngineLost: the engine died meanwhile, or it was killed because it did not answer within ``seconds``.
        """
        try:
            answer = ray.get(getattr(self._handle, method).remote(*arguments), timeout=seconds)
        except GetTimeoutError as error:
            # A hung epoch holds locks and memory that no other trial can take from it: only a new process is clean.
            # The signal reaches a stopped process too, and needs no answer from it. Actor and engine share a node.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            raise EngineLost(ENGINE_HUNG) from error
        # Ray raises an error of the engine's own code as an instance of its class, so UnknownTrial can be
        # caught by name.
        except (RayActorError, UnknownTrial) as error:
            # UnknownTrial: the engine died and Ray restarted it between two calls, so this process never saw the death.
            raise self._loss() from error
        self._oom_kills = kernel_oom_kills()
        return answer

    def _loss(self) -> EngineLost:
        """Find out why the engine died. The kernel's counter is per machine, so it is compared with its value after
        the last call that succeeded.
        """
        if kernel_oom_kills() > self._oom_kills:
            return EngineLost(ENGINE_OUT_OF_MEMORY, "the kernel killed the engine for lack of memory")
        if words := ray_oom_message(ray.get_runtime_context().get_node_id(), self._pid):
            return EngineLost(ENGINE_OUT_OF_MEMORY, words)
        return EngineLost(ENGINE_DIED)


class InProcessEngine:
    """An engine in the process of its trial actor, for that actor's trials alone.

    The engine dies with the actor. Nothing can interrupt a call, so ``seconds`` is ignored: the driver ends a hung
    actor from outside (:class:`search.execution.tune_callbacks.TrialHangCallback`).
    """

    instance = None

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def wait_until_ready(self) -> None:
        """Do nothing: the engine has started."""

    def call(self, method: str, *arguments: Any, seconds: float | None = None) -> Any:
        """Call a method of the engine and return its result."""
        return getattr(self._engine, method)(*arguments)
