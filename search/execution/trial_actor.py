"""The adapter to Ray Tune: a thin trial actor in front of each machine's engine.

Ray Tune starts, stops and reuses :class:`TrialActor`; it holds no TensorFlow, only the name of the engine on its
node. (Where processes are not reused, each trial's actor is an engine of its own.) Ray Tune keeps no state that
matters: a trial's checkpoint lies in the search's own storage, and the ledger knows which trials exist.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.execution.engines.engine_client import Deadline, EngineLost, OwnEngine, SharedEngine
from search.execution.engines.logged_engine import LoggedEngine
from search.execution.engines.nodes import Share, living
from trainables.reuse import Reuse

NAMESPACE = "unfreeze"
THREADS = 64
"""Calls that an engine takes at once; far more than trials on one machine."""


def engine_on(node: str, session: Mapping[str, Any], threads: int, gpus: Sequence[str] = ()) -> Any:
    """The engine of a session on a node, started if need be. Ray restarts it if its process dies.

    It asks Ray for nothing: trials do. ``gpus`` are those that it sees: where trials ask for GPUs there is an engine
    for each, so that trials which share a GPU share the process that owns its memory.
    """
    name = "/".join([session["name"], "engine", node, *([",".join(gpus)] if gpus else [])])
    options: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "get_if_exists": True,
        "num_cpus": 0,
        "max_concurrency": THREADS,
        "max_restarts": -1,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
    seen = gpus or _unasked(session)
    return ray.remote(LoggedEngine).options(**options).remote(threads, **_engine_options(session), gpus=seen)


def engine_of_trials(session: Mapping[str, Any]) -> SharedEngine | OwnEngine:
    """The engine for the trials of this process: its node's, or one of its own that ends with it."""
    context, share = ray.get_runtime_context(), Share(*session["share"])
    node = living(ray.nodes())[context.get_node_id()]
    threads = node.threads(share)
    gpus = context.get_accelerator_ids().get("GPU", []) if share.gpus_per_trial else []
    if not session["reuse"]["processes"]:
        return OwnEngine(LoggedEngine(threads, **_engine_options(session), gpus=gpus or _unasked(session)))
    return SharedEngine(engine_on(node.id, session, threads, gpus))


def on_engine(session: Mapping[str, Any], method: str, *arguments: Any) -> Any:
    """Call a method of the engine of the node where this runs, as a task of Ray's."""
    engine = engine_of_trials(session)
    engine.enter()
    return engine.ask(method, *arguments)


def visible_gpus(count: int) -> list[str]:
    """What Ray calls the ``count`` GPUs of the node where this runs."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",") if named else [str(number) for number in range(count)]


def _engine_options(session: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "verbose": session["verbose"],
        "reuse": Reuse(**session["reuse"]),
        "numerics": session["numerics"],
        "copies": session["joined"],
    }


def _unasked(session: Mapping[str, Any]) -> Sequence[str] | None:
    """The GPUs of trials that ask for none: on one's own machine what is there, on a cluster nothing."""
    return () if session["joined"] else None


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """Runs one trial after another: each step is one epoch in the machine's engine.

    A trial begins with its first step. Ray Tune may make a process for a trial and then give the trial to another
    that has become free: the one that came too late must not touch it.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Find the engine."""
        self._engine = engine_of_trials(config["session"])
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
