"""The engine as it runs under Ray: what happens to its trials is written down, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray

from search.execution.engines.engine import Engine
from search.records.event_log import ENGINE_EXIT, EventLog, redirect_output
from search.records.formatting import parameter_phrases


class LoggedEngine(Engine):
    """An :class:`~search.execution.engines.engine.Engine` with a log in the folder that a trial's place calls ``logs``.

    What the process prints goes there, too, unless it is to be seen on the driver's screen (``verbose``).
    """

    def __init__(self, threads: int, verbose: bool = False, *options: Any, **named: Any) -> None:
        super().__init__(threads, verbose, *options, **named)
        self._log = EventLog()
        self._silent = not verbose
        self._node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else None

    def begin(
        self, key: str, trial: Mapping[str, Any], place: Mapping[str, str], known: int | None = None
    ) -> int:
        """Begin a trial."""
        folder = place.get("logs")
        if folder is not None and self._silent:
            self._silent = False
            redirect_output(folder)
        self.end(key)
        params = " ".join(parameter_phrases(trial.get("params", {}), "="))
        self._log.begins(key, folder, f"begins: {params}")
        done = super().begin(key, trial, place, known)
        if done:
            self._log.says(key, f"goes on from its checkpoint of epoch {done}")
        return done

    def epoch(self, key: str) -> dict[str, Any]:
        """Run one epoch."""
        result = super().epoch(key)
        if "reason" in result:
            self._log.says(key, f"{result['reason']}: {str(result.get('error') or '').strip()}")
        if "damaged" in result:
            self._log.says(key, f"a checkpoint is damaged, the one before it is taken: {result['damaged']}")
        if "unsaved" in result:
            self._log.says(key, f"its checkpoint can't be written: {result['unsaved']}")
        return {**result, "node": self._node} if self._node else result

    def end(self, key: str) -> None:
        """Free what a trial held."""
        held = key in self._running or key in self._stillborn
        super().end(key)
        if held:
            self._log.ends(key, ENGINE_EXIT)
