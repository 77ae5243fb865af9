"""On which node each of Ray Tune's trials runs, so that a lost node is told from a failing trial."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ray
from ray import tune

from search.nodes import Node, answers, living


def _node(actor: object) -> str:
    """Runs in a trial's process."""
    return str(ray.get_runtime_context().get_node_id())


@dataclass
class Whereabouts(tune.Callback):  # type: ignore[misc]
    """Asks each trial's process where it is, once it has started.

    A trial that was on a lost node did nothing wrong: its failure does not count against Ray Tune's ``max_failures``.
    """

    _answers: dict[str, Any] = field(default_factory=dict)
    _actors: dict[str, str] = field(default_factory=dict)
    _nodes: dict[str, Node] = field(default_factory=dict)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process is there, new or reused."""
        actor = trial.temporary_state.ray_actor
        if actor is None:
            return
        key = actor._actor_id.hex()
        self._actors[trial.trial_id] = key
        if key not in self._answers:
            self._answers[key] = actor.__ray_call__.remote(_node)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray Tune has counted a failure, and goes on with the trial."""
        if self.lost(trial.trial_id):
            trial.run_metadata.num_failures = max(0, trial.run_metadata.num_failures - 1)

    def lost(self, trial_id: str) -> bool:
        """Whether the node where a trial ran last is gone: Ray says so, or nothing answers there any more."""
        node = self._where(trial_id)
        if node is None:
            return False
        alive = living(ray.nodes())
        self._nodes |= alive
        known = self._nodes.get(node)
        return node not in alive or known is None or not answers(known.host, known.port)

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
