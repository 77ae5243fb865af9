"""The adapter to Ray Tune: a thin trial actor in front of each machine's engine.

Ray Tune starts, stops and reuses :class:`TrialActor`; it holds no TensorFlow, only the name of the engine on its
node. (Where processes are not reused, each trial's actor is an engine of its own.) Ray Tune keeps no state that
matters: a trial's checkpoint lies in the search's own storage, and the ledger knows which trials exist.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from ray import tune

from search.execution.engines.engine_actor import connect_engine
from search.execution.engines.engine_client import Deadline, EngineLost


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """Runs one trial after another: each step is one epoch in the machine's engine.

    A trial begins with its first step. Ray Tune may make a process for a trial and then give the trial to another
    that has become free: the one that came too late must not touch it.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Find the engine."""
        self._engine = connect_engine(config["session"])
        self._key = ""
        self._config = config

    def step(self) -> dict[str, Any]:
        """One epoch; or, where the engine is of no use any more, that the trial stops here for now (``reason``)."""
        try:
            return {**self._epoch(), "engine": self._engine.life}
        except EngineLost as lost:
            self._key = ""
            return {"done": True, "reason": lost.reason, "error": str(lost), "engine": self._engine.life}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial without a new process."""
        self.cleanup()
        self._config = new_config
        return True

    def cleanup(self) -> None:
        """Free what the trial held."""
        if self._key:
            with contextlib.suppress(EngineLost):  # whoever needs it next finds out
                self._engine.ask("end", self._key)
        self._key = ""

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Say where the trial's own checkpoint is; the engine wrote it after the epoch."""
        (Path(checkpoint_dir) / "where.json").write_text(json.dumps(self._config["place"]))

    def load_checkpoint(self, checkpoint: str) -> None:
        """Nothing to do: beginning a trial reads its newest checkpoint."""

    def _epoch(self) -> dict[str, Any]:
        if self._key:
            return dict(self._engine.ask("epoch", self._key, seconds=self._config["timeout"]))
        self._engine.enter()
        trial, deadline = self._config["trial"], Deadline(self._config["timeout"])
        self._key = f"{trial['method']}-{self._config['number']}"
        place, known = self._config["place"], self._config["known"]
        self._engine.ask("begin", self._key, trial, place, known, seconds=deadline.left)
        return dict(self._engine.ask("epoch", self._key, seconds=deadline.left))
