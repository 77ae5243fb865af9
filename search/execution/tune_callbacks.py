"""Watches the processes of trials through Tune's callbacks: where they run, whether they died, whether they hang."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from search.execution.cluster.nodes import accepts_connections, alive_nodes
from search.execution.cluster.ray_internals import actor_id, call_in_actor
from search.execution.tune_patches import actor_of, error_file

MAX_UNSTARTED_FAILURES = 3
"""How many trials in a row may fail before they run, and still count as stopped by a lost node."""

HANG_GRACE_SECONDS = 60.0
"""Time that a process gets beyond ``trial_timeout``: to start, and to report a hung engine by itself."""


def _own_node_id(actor: object) -> str:
    """Return the node of the process where this runs; called in the process of a trial."""
    return str(ray.get_runtime_context().get_node_id())


@dataclass
class NodeLossCallback(tune.Callback):  # type: ignore[misc]
    """Remembers the node of each trial, so that a lost node is not mistaken for a failing trial.

    Each trial's process is asked for its node as soon as it has started: after a failure it can no longer answer.
    """

    _answers: dict[str, Any] = field(default_factory=dict)
    """Ray's future of the node of each actor. Actors are reused, so they are asked once."""
    _actors: dict[str, str] = field(default_factory=dict)
    """The actor of each trial, by Tune's id of the trial."""
    _unstarted: int = 0

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ask a trial's process, which is new or reused, for its node."""
        actor = actor_of(trial)
        if actor is None:
            return
        self._unstarted = 0  # a trial has begun to run, so the failures before it were lost nodes
        key = actor_id(actor)
        self._actors[trial.trial_id] = key
        if key not in self._answers:
            self._answers[key] = call_in_actor(actor, _own_node_id)

    def node_lost(self, trial_id: str) -> bool:
        """Return whether the node of a trial is gone, or the trial has not begun to run.

        Tune gives a new trial to a process that has become idle. If the node of that process was lost meanwhile, Tune
        fails the trial before it runs. That may happen a few times in a row; trials that never begin have another
        cause.
        """
        node = self._node_of(trial_id)
        if node is None:
            self._unstarted += 1
            return self._unstarted <= MAX_UNSTARTED_FAILURES
        alive = alive_nodes(ray.nodes())
        # Ray's head needs several seconds to notice that a node is gone; its closed port shows it at once.
        return node not in alive or not accepts_connections(alive[node].host, alive[node].port)

    def _node_of(self, trial_id: str) -> str | None:
        answer = self._answers.get(self._actors.get(trial_id, ""))
        if answer is None:
            return None
        # The answer was requested when the trial started; an actor that has not answered by now never will.
        try:
            return str(ray.get(answer, timeout=0))
        except (ray.exceptions.RayError, TimeoutError):
            return None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a restore that is never made


class TrialHangCallback(tune.Callback):  # type: ignore[misc]
    """Reports each trial whose own process has died, and kills processes that have reported nothing for too long.

    A trial actor that waits for a hung engine reports that itself (:mod:`search.execution.engines.engine_client`).
    This callback is for an actor that cannot: it was stopped itself, or it contains the engine.

    Args:
        timeout: seconds that an epoch may take; None for no limit.
        process_died: called with Tune's id of the trial, Ray's message, and whether the process hung.
    """

    def __init__(self, timeout: float | None, process_died: Callable[[str, str, bool], None]) -> None:
        self._timeout, self._process_died = timeout, process_died
        self._last_report: dict[Trial, float] = {}
        self._killed: set[Trial] = set()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record the time of the start."""
        self._last_report[trial] = time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record the time of the report."""
        self._last_report[trial] = time.monotonic()

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Forget a trial that has ended regularly."""
        self._forget(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Report a trial whose process has died, or has raised an error."""
        self._process_died(trial.trial_id, _error_message(trial), trial in self._killed)
        self._forget(trial)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Kill what hangs. Tune calls this at least ten times a second."""
        if self._timeout is None:
            return
        oldest = time.monotonic() - self._timeout - HANG_GRACE_SECONDS
        for trial in [t for t, reported in self._last_report.items() if reported < oldest]:
            actor = actor_of(trial)
            if trial.status == Trial.RUNNING and actor is not None:
                # Tune then calls on_trial_error, which needs to know that the process did not die by itself.
                self._killed.add(trial)
                # Without its entry the trial is not killed once more before Tune notices the death.
                del self._last_report[trial]
                ray.kill(actor)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a restore that is never made

    def _forget(self, trial: Trial) -> None:
        self._last_report.pop(trial, None)
        self._killed.discard(trial)


def _error_message(trial: Trial) -> str:
    """Return what Tune has written about a trial's end."""
    file = error_file(trial)
    try:
        return "" if file is None else file.read_text()
    except OSError:
        return ""
