"""The nodes that can run a search's trials, as they come and go, and the engines on them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.execution.engines.autoscaling import AutoscalingLimits
from search.execution.engines.engine_actor import start_engine, visible_gpus
from search.execution.engines.nodes import Node, NodeLabels, TrialResources, alive_nodes
from trainables.errors import ClusterError

GPU_PROBE_SECONDS = 60.0
"""A node that has not said by then which GPUs it has is asked again later."""


@dataclass
class EnginePool:
    """Engines on every node that fits a trial. :meth:`look` may run in a thread of its own.

    Args:
        session: what :func:`search.execution.trial_actor.start_engine` needs to know.
        demand: what a trial asks for.
        growth: what may come; None where the cluster stays as it is.
        told: takes a line for whoever watches.
    """

    session: Mapping[str, Any]
    demand: TrialResources
    growth: AutoscalingLimits | None
    told: Callable[[str], None] = lambda words: None
    _nodes: dict[str, Node] = field(default_factory=dict)
    _engines: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    _work: dict[str, str] | None = None
    _labels: NodeLabels = field(default_factory=NodeLabels)
    _looked: bool = False
    _looking: threading.Lock = field(default_factory=threading.Lock)

    @property
    def engines(self) -> tuple[Any, ...]:
        """Handles of the engines of living nodes; none where none fits a trial just now."""
        return tuple(engine for engines in self._engines.values() for engine in engines)

    @property
    def capacity(self) -> int:
        """How many trials may be under way: those that fit now and, where the cluster can grow, those that would then.

        At least one, which waits for a node if need be.
        """
        now = sum(node.trials(self.demand) for node in self._nodes.values())
        return max(1, now if self.growth is None else self.growth.trials(self.demand, now))

    def look(self) -> None:
        """Take note of the nodes there are now; start engines on new ones."""
        with self._looking:
            alive = alive_nodes(ray.nodes())
            fit = {key: node for key, node in alive.items() if node.trials(self.demand)}
            before, self._nodes = self._nodes, fit
            self._engines = {key: engines for key, engines in self._engines.items() if key in fit}
            if self._looked:
                self._say(before)
            self._looked = True
            for key, node in fit.items():
                if key not in self._engines and (started := self._start(node)):
                    self._engines = {**self._engines, key: started}

    def work_on(self, place: Mapping[str, str]) -> None:
        """Have every engine, those that come later too, open backbone and data ahead of its first trial."""
        with self._looking:
            self._work = dict(place)
            for engine in self.engines:
                engine.open.remote(**self._work)

    @contextmanager
    def at_home(self) -> Iterator[Any]:
        """An engine on the driver's own node: one of the search's, or one for this alone, without GPUs."""
        here = ray.get_runtime_context().get_node_id()
        if here in self._engines:
            yield self._engines[here][0]
            return
        engine = start_engine(
            here, {**self.session, "share": (1.0, 0.0, 1), "joined": True}, os.cpu_count() or 1
        )
        try:
            yield engine
        finally:
            ray.kill(engine)

    def refuse_misfit(self) -> None:
        """Say so when no trial will ever run here.

        Raises:
            ClusterError: no node fits a trial, and none that does can come.
        """
        self._say_unused()
        if self._nodes:
            return
        has = "; ".join(node.words for node in alive_nodes(ray.nodes()).values()) or "nothing"
        wanted = f"{self.demand.cpus_per_trial:g} CPUs and {self.demand.gpus_per_trial:g} GPUs"
        if self.growth is None or not self.growth.fits(self.demand):
            may = f"; the autoscaler may add {self.growth.words}" if self.growth else ""
            raise ClusterError(
                f"cpus_per_trial, gpus_per_trial: expected a node with {wanted} free for a trial, received nodes "
                f"with {has}{may}"
            )
        self.told(
            f"nodes: none has {wanted} for a trial yet ({has}); the autoscaler may add {self.growth.words}"
        )

    def _say_unused(self) -> None:
        gpus = sum(node.gpus for node in self._nodes.values())
        if gpus and not self.demand.gpus_per_trial and self.session.get("joined"):
            self.told(
                f"nodes: there are {gpus:g} GPUs, but trials ask for none and will not see them; --gpus-per-trial 1 "
                "asks for a whole one, 0.25 for a share"
            )

    def _start(self, node: Node) -> tuple[Any, ...]:
        try:
            engines = tuple(
                start_engine(node.id, self.session, node.threads(self.demand), gpus)
                for gpus in self._shares(node)
            )
        except ray.exceptions.RayError:
            return ()  # gone again; the next look knows
        if self._work is not None:
            for engine in engines:
                engine.open.remote(**self._work)
        return engines

    def _shares(self, node: Node) -> list[tuple[str, ...]]:
        """The GPUs of each of a node's engines; nothing where one engine has the whole node."""
        if not self.demand.gpus_per_trial:
            return [()]
        count = node.engines(self.demand)
        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        probe = ray.remote(visible_gpus).options(num_cpus=0, scheduling_strategy=there).remote(int(node.gpus))
        gpus = ray.get(probe, timeout=GPU_PROBE_SECONDS)
        each = len(gpus) // count
        return [tuple(gpus[start : start + each]) for start in range(0, count * each, each)]

    def _say(self, before: Mapping[str, Node]) -> None:
        lost = [node for key, node in before.items() if key not in self._nodes]
        for node in lost:
            self.told(f"nodes: lost {self._labels.of(node.id)} ({node.words}); its trials go on elsewhere")
        for key, node in self._nodes.items():
            if key not in before:
                self.told(f"nodes: {self._labels.of(key)} has joined ({node.words})")
        if lost and not self._nodes:
            self.told("nodes: none is left that fits a trial; waiting for one")
