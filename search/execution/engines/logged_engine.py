"""Runs an engine under Ray and logs what happens to its trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import ray

from search.execution.engines.engine import Engine
from search.execution.engines.messages import EpochResult, SessionSpec, TrialRequest
from search.records.event_log import ENGINE_EXIT, EventLog, redirect_output
from search.records.formatting import parameter_phrases


class LoggedEngine(Engine):
    """An :class:`~search.execution.engines.engine.Engine` that logs to the folder :attr:`.TrialRequest.logs`.

    What the process prints is logged too, unless ``verbose`` asks for it on the driver's screen.
    """

    def __init__(self, threads: int, session: SessionSpec, gpus: Sequence[str] | None = None) -> None:
        super().__init__(
            threads,
            session.verbose,
            session.reuse,
            session.precision,
            session.jit,
            # On a cluster the folders of a search are on shared storage, which is slower than the node's own disk.
            copy_data=session.joined,
            gpus=gpus,
        )
        self._log = EventLog()
        self._redirect = not session.verbose
        self._node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else None

    def begin(self, request: TrialRequest) -> int:
        """Begin a trial and log its parameters."""
        folder = str(request.logs) if request.logs is not None else None
        if folder is not None and self._redirect:
            self._redirect = False  # once for the whole process
            redirect_output(folder)
        # If this process ran the trial before, its entry in the log has to end before a new one starts.
        self.end(request.key)
        params = " ".join(parameter_phrases(request.config.params, "="))
        self._log.start_trial(request.key, folder, f"begins: {params}")
        done = super().begin(request)
        if done:
            self._log.write(request.key, f"resumes from its checkpoint of epoch {done}")
        return done

    def epoch(self, key: str) -> EpochResult:
        """Run one epoch and log what went wrong."""
        result = super().epoch(key)
        if result.reason is not None:
            self._log.write(key, f"{result.reason}: {(result.error or '').strip()}")
        if result.damaged is not None:
            self._log.write(
                key, f"this checkpoint is damaged, an earlier one is used if there is one: {result.damaged}"
            )
        if result.unsaved is not None:
            self._log.write(key, f"its checkpoint can't be written: {result.unsaved}")
        return replace(result, node=self._node)

    def end(self, key: str) -> None:
        """Free the resources of a trial and log that it has left this engine."""
        held = key in self._trials
        super().end(key)
        if held:
            self._log.end_trial(key, ENGINE_EXIT)
