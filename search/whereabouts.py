"""On which node each of Ray Tune's trials runs, so that a lost node is told from a failing trial."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ray
from ray import tune

from search.execution.engines.nodes import answers, living

UNSTARTED = 3
"""So many trials in a row may fail before they have begun to run."""


def _node(actor: object) -> str:
    """Runs in a trial's process."""
    return str(ray.get_runtime_context().get_node_id())


@dataclass
class Whereabouts(tune.Callback):  # type: ignore[misc]
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
            self._answers[key] = actor.__ray_call__.remote(_node)

    def astray(self, trial_id: str) -> bool:
        """Whether the node where a trial ran is gone, or the trial has not begun to run.

        Ray Tune gives a new trial to a process that has become idle, and fails the trial when that one's node was lost
        meanwhile. That may happen a few times in a row; trials that never begin have another cause.
        """
        node = self._where(trial_id)
        if node is None:
            self._unstarted += 1
            return self._unstarted <= UNSTARTED
        alive = living(ray.nodes())
        return node not in alive or not answers(
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
