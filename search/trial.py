"""The adapter to Ray Tune: a thin trial actor in front of each machine's engine.

Ray Tune starts, stops and reuses :class:`TrialActor`; it holds no TensorFlow, only the name of the engine on its
machine. (Where processes are not reused, each trial's actor is an engine of its own.) Ray Tune keeps no state that
matters: a trial's checkpoint lies in the search's own storage, and the ledger knows which trials exist.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.engine import Engine
from trainables.reuse import Reuse

NAMESPACE = "unfreeze"
THREADS = 64
"""Calls that an engine takes at once; far more than trials on one machine."""


Ask = Callable[..., Any]
"""Calls a method of an engine, named first, and waits for what it returns."""


def engine_on(
    node: str,
    session: str,
    threads: int,
    verbose: bool = False,
    reuse: Reuse | None = None,
    numerics: Mapping[str, str] | None = None,
) -> Any:
    """The engine of ``session`` on a node, started if need be. Ray restarts it if its process dies."""
    options: dict[str, Any] = {
        "name": f"{session}/engine/{node}",
        "namespace": NAMESPACE,
        "get_if_exists": True,
        "num_cpus": 0,
        "max_concurrency": THREADS,
        "max_restarts": -1,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
    return ray.remote(Engine).options(**options).remote(threads, verbose, reuse, numerics)


def engine_of_trials(session: Mapping[str, Any]) -> Ask:
    """The engine for the trials of this process: its machine's, or one of its own that ends with it."""
    reuse, numerics = Reuse(**session["reuse"]), session["numerics"]
    if not reuse.processes:
        own = Engine(session["threads"], session["verbose"], reuse, numerics)
        return lambda method, *arguments: getattr(own, method)(*arguments)
    node = ray.get_runtime_context().get_node_id()
    shared = engine_on(node, session["name"], session["threads"], session["verbose"], reuse, numerics)
    return lambda method, *arguments: ray.get(getattr(shared, method).remote(*arguments))


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """Runs one trial after another: each step is one epoch in the machine's engine.

    A trial begins with its first step. Ray Tune may make a process for a trial and then give the trial to another
    that has become free: the one that came too late must not touch it.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Find the engine."""
        self._ask = engine_of_trials(config["session"])
        self._key = ""
        self._config = config

    def step(self) -> dict[str, Any]:
        """One epoch."""
        if not self._key:
            self._begin()
        result: dict[str, Any] = self._ask("epoch", self._key)
        return result

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial without a new process."""
        self.cleanup()
        self._config = new_config
        return True

    def cleanup(self) -> None:
        """Free what the trial held."""
        if self._key:
            self._ask("end", self._key)
        self._key = ""

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Say where the trial's own checkpoint is; the engine wrote it after the epoch."""
        (Path(checkpoint_dir) / "where.json").write_text(json.dumps(self._config["place"]))

    def load_checkpoint(self, checkpoint: str) -> None:
        """Nothing to do: beginning a trial reads its newest checkpoint."""

    def _begin(self) -> None:
        trial = self._config["trial"]
        self._key = f"{trial['method']}-{self._config['number']}"
        self._ask("begin", self._key, trial, self._config["place"], self._config["known"])
