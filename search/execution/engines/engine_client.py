"""How a trial asks its engine, and what it learns when that one dies or says nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError

from search.execution.engines.engine import Engine, UnknownTrial
from search.execution.engines.oom_kills import kernel_oom_kills, ray_oom_message

START_TIMEOUT_SECONDS = 600.0
"""How long an engine may take to start."""

RETRY_SECONDS = 0.2
"""Between two looks at an engine that is being started again."""

ENGINE_DIED, ENGINE_OUT_OF_MEMORY, ENGINE_HUNG = ENGINE_LOSS_REASONS = (
    "engine_died",
    "engine_memory",
    "engine_silent",
)
"""It died; the same, for lack of memory; a call took longer than it may, so the engine was ended."""


class EngineLost(Exception):
    """The engine is of no use to the trial any more; ``reason`` is one of :data:`ENGINE_LOSS_REASONS`."""

    def __init__(self, reason: str, words: str = "") -> None:
        super().__init__(words)
        self.reason = reason


class Deadline:
    """So many seconds from now on, for several calls together; None for as long as they like."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float | None:
        """What is left, in seconds."""
        return None if self._end is None else max(0.001, self._end - time.monotonic())


class SharedEngine:
    """The engine of this machine, which other trials use, too, and which Ray starts again when it dies.

    Attributes:
        life: tells the engine from the one that Ray starts in its place; None before :meth:`enter`.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.life: str | None = None
        self._pid = self._kills = 0

    def enter(self) -> None:
        """Wait until the engine has started.

        Raises:
            EngineLost: it does not start.
        """
        self._kills, end = kernel_oom_kills(), time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                self.life, self._pid = ray.get(self._handle.ready.remote(), timeout=START_TIMEOUT_SECONDS)
            except (RayActorError, GetTimeoutError) as error:
                if not isinstance(error, ActorUnavailableError) or time.monotonic() > end:
                    raise EngineLost(ENGINE_DIED, f"the engine does not start: {error}") from error
                time.sleep(RETRY_SECONDS)
            else:
                return

    def ask(self, method: str, *arguments: Any, seconds: float | None = None) -> Any:
        """What a method of the engine returns.

        Raises:
            EngineLost: it died meanwhile, or was ended because it said nothing for so many seconds.
        """
        try:
            answer = ray.get(getattr(self._handle, method).remote(*arguments), timeout=seconds)
        except GetTimeoutError as error:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            raise EngineLost(ENGINE_HUNG) from error
        except (RayActorError, UnknownTrial) as error:
            if kernel_oom_kills() > self._kills:
                raise EngineLost(
                    ENGINE_OUT_OF_MEMORY, "the kernel killed the engine for lack of memory"
                ) from error
            if words := ray_oom_message(ray.get_runtime_context().get_node_id(), self._pid):
                raise EngineLost(ENGINE_OUT_OF_MEMORY, words) from error
            raise EngineLost(ENGINE_DIED) from error
        self._kills = kernel_oom_kills()
        return answer


class InProcessEngine:
    """An engine in this process, for its trials alone: it dies with them, and nobody here can end it."""

    life = None

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def enter(self) -> None:
        """It is here."""

    def ask(self, method: str, *arguments: Any, seconds: float | None = None) -> Any:
        """What a method of the engine returns, however long that takes."""
        return getattr(self._engine, method)(*arguments)
