"""Sees trial processes that die or that say nothing any more.

On which node each of Ray Tune's trials runs, so that a lost node is told from a failing trial.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from search.execution.engines.nodes import accepts_connections, alive_nodes

MAX_UNSTARTED_FAILURES = 3
"""So many trials in a row may fail before they have begun to run."""


def _own_node_id(actor: object) -> str:
    """Runs in a trial's process."""
    return str(ray.get_runtime_context().get_node_id())


@dataclass
class NodeLossCallback(tune.Callback):  # type: ignore[misc]
    """Asks each trial's process where it is, once it has started."""

    _answers: dict[str, Any] = field(default_factory=dict)
    _actors: dict[str, str] = field(default_factory=dict)
    _unstarted: int = 0

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process is there, new or reused."""
        actor = trial.temporary_state.ray_actor
        if actor is None:
            return
        self._unstarted = 0
        key = actor._actor_id.hex()
        self._actors[trial.trial_id] = key
        if key not in self._answers:
            self._answers[key] = actor.__ray_call__.remote(_own_node_id)

    def astray(self, trial_id: str) -> bool:
        """Whether the node where a trial ran is gone, or the trial has not begun to run.

        Ray Tune gives a new trial to a process that has become idle, and fails the trial when that one's node was lost
        meanwhile. That may happen a few times in a row; trials that never begin have another cause.
        """
        node = self._where(trial_id)
        if node is None:
            self._unstarted += 1
            return self._unstarted <= MAX_UNSTARTED_FAILURES
        alive = alive_nodes(ray.nodes())
        return node not in alive or not accepts_connections(
            alive[node].host, alive[node].port
        )  # the latter is known earlier

    def _where(self, trial_id: str) -> str | None:
        answer = self._answers.get(self._actors.get(trial_id, ""))
        if answer is None:
            return None
        try:
            return str(ray.get(answer, timeout=0))
        except (ray.exceptions.RayError, TimeoutError):
            return None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles its callbacks for a restore that is never made


GRACE_SECONDS = 60.0
"""What a process gets beyond ``trial_timeout``: to start, and to tell of an engine that hangs by itself."""


class TrialHangCallback(tune.Callback):  # type: ignore[misc]
    """Tells of each trial whose own process has died, and ends those that are silent for too long.

    A process that waits for a silent engine says so in time (:mod:`search.execution.engines.engine_client`);
    this is for one that can't:
    it was stopped itself, or is its own engine.

    Args:
        limit: seconds without an epoch that a trial may take; None for as many as it likes.
        lost: called with Ray Tune's name for the trial, what Ray said, and whether it had been silent.
    """

    def __init__(self, limit: float | None, lost: Callable[[str, str, bool], None]) -> None:
        self._limit, self._lost = limit, lost
        self._since: dict[Trial, float] = {}
        self._ended: set[Trial] = set()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Its process has started."""
        self._since[trial] = time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch."""
        self._since[trial] = time.monotonic()

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """It ended in peace."""
        self._forget(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Its process has died, or has raised something."""
        self._lost(trial.trial_id, _error(trial), trial in self._ended)
        self._forget(trial)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Ten times a second or more: end what is silent."""
        if self._limit is None:
            return
        oldest = time.monotonic() - self._limit - GRACE_SECONDS
        for trial in [t for t, since in self._since.items() if since < oldest]:
            actor = trial.temporary_state.ray_actor
            if trial.status == Trial.RUNNING and actor is not None:
                self._ended.add(trial)
                del self._since[trial]
                ray.kill(actor)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles it for a restore that is never made

    def _forget(self, trial: Trial) -> None:
        self._since.pop(trial, None)
        self._ended.discard(trial)


def _error(trial: Trial) -> str:
    """What Ray Tune has written down of a trial's end; its own way of reading it looks where the file gets later."""
    try:
        return Path(trial.error_file).read_text()
    except (OSError, TypeError):
        return ""
