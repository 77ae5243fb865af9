"""Keeps engines on every node that can run a trial, as nodes join and leave the cluster."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.execution.cluster.autoscaling import AutoscalingLimits
from search.execution.cluster.nodes import FixedTrialResources, Node, NodeLabels, alive_nodes
from search.execution.engines.engine_actor import gpu_names, start_engine
from search.execution.engines.messages import SessionSpec, WorkbenchPaths
from trainables.errors import ClusterError

GPU_PROBE_SECONDS = 60.0
"""Time that a new node has to report its GPUs. If it does not, the next refresh asks again."""


@dataclass
class EnginePool:
    """The engines of a session by node.

    :meth:`refresh` runs in a thread of its own. Readers need no lock: the dictionaries are replaced and never changed.

    Attributes:
        session: the session that the engines belong to.
        autoscaling: which nodes may be added; None if the cluster stays as it is.
        notify: receives a line for each node that joins or leaves.
    """

    session: SessionSpec
    autoscaling: AutoscalingLimits | None
    notify: Callable[[str], None] = lambda message: None
    _nodes: dict[str, Node] = field(default_factory=dict)
    _engines: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    _preloaded: WorkbenchPaths | None = None
    _labels: NodeLabels = field(default_factory=NodeLabels)
    _refreshed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def engines(self) -> tuple[Any, ...]:
        """Actor handles of the engines of living nodes; none if no node has room for a trial right now."""
        return tuple(engine for engines in self._engines.values() for engine in engines)

    @property
    def capacity(self) -> int:
        """How many trials may be handed to Ray: those that fit now, or on all nodes that the autoscaler may add.

        It is at least 1: that trial waits for a node.
        """
        resources = self.session.resources
        now = sum(node.trial_capacity(resources) for node in self._nodes.values())
        return max(1, now if self.autoscaling is None else self.autoscaling.trial_capacity(resources, now))

    def refresh(self) -> None:
        """Read which nodes there are, report changes, and start engines on new nodes."""
        with self._lock:
            alive = alive_nodes(ray.nodes())
            fit = {key: node for key, node in alive.items() if node.trial_capacity(self.session.resources)}
            before, self._nodes = self._nodes, fit
            # Engines of lost nodes died with them. A node that comes back has a new id and gets new engines.
            self._engines = {key: engines for key, engines in self._engines.items() if key in fit}
            if self._refreshed:  # the nodes of the first refresh have not joined just now
                self._notify_changes(before)
            self._refreshed = True
            for key, node in fit.items():
                # Includes nodes on which an earlier refresh could not start engines.
                if key not in self._engines and (started := self._start_engines(node)):
                    self._engines = {**self._engines, key: started}

    def preload(self, paths: WorkbenchPaths) -> None:
        """Let every engine, including those of later nodes, open a workbench ahead of its first trial."""
        with self._lock:
            # The lock makes sure that an engine which a refresh is starting either is in ``engines`` below or
            # finds ``_preloaded`` when it has started.
            self._preloaded = paths
            # The result is not awaited: if a workbench cannot be opened, the first trial fails with the same error.
            for engine in self.engines:
                engine.open.remote(paths)

    @contextmanager
    def on_driver_node(self) -> Iterator[Any]:
        """An engine on the driver's own node, where the user's files are.

        If the driver's node runs no trials, an engine without GPUs is started for the block alone.
        """
        here = ray.get_runtime_context().get_node_id()
        if here in self._engines:
            yield self._engines[here][0]
            return
        # ``joined`` hides the GPUs of this node from the engine: Ray may have given them to another job.
        spec = replace(self.session, resources=FixedTrialResources(1.0, 0.0, 1), joined=True)
        engine = start_engine(here, spec, os.cpu_count() or 1)
        try:
            yield engine
        finally:
            ray.kill(engine)

    def require_fitting_node(self) -> None:
        """Refuse to start where no trial will ever run.

        Raises:
            ClusterError: no node has room for a trial, and the autoscaler may add none that has.
        """
        self._notify_unused_gpus()
        if self._nodes:
            return
        has = "; ".join(node.description for node in alive_nodes(ray.nodes()).values()) or "nothing"
        if self.autoscaling is None or not self.autoscaling.can_fit(self.session.resources):
            may = f"; the autoscaler may add {self.autoscaling.description}" if self.autoscaling else ""
            raise ClusterError(
                f"cpus_per_trial, gpus_per_trial: expected a node with {self._wanted} free for a trial, received "
                f"nodes with {has}{may}"
            )
        self.notify(
            f"nodes: none has {self._wanted} for a trial yet ({has}); the autoscaler may add "
            f"{self.autoscaling.description}"
        )

    @property
    def _wanted(self) -> str:
        resources = self.session.resources
        return f"{resources.cpus_per_trial:g} CPUs and {resources.gpus_per_trial:g} GPUs"

    def _notify_unused_gpus(self) -> None:
        gpus = sum(node.gpus for node in self._nodes.values())
        if gpus and not self.session.resources.gpus_per_trial and self.session.joined:
            self.notify(
                f"nodes: the cluster has {gpus:g} GPUs, but trials request none and will not see them; "
                "--gpus-per-trial 1 requests a whole GPU, 0.25 a share of one"
            )

    def _start_engines(self, node: Node) -> tuple[Any, ...]:
        threads = node.threads_per_trial(self.session.resources)
        try:
            engines = tuple(
                start_engine(node.id, self.session, threads, gpus) for gpus in self._gpu_groups(node)
            )
        except ray.exceptions.RayError:
            return ()  # the node has left again, which the next refresh sees
        if self._preloaded is not None:
            for engine in engines:
                engine.open.remote(self._preloaded)
        return engines

    def _gpu_groups(self, node: Node) -> list[tuple[str, ...]]:
        """Return the GPUs of each of a node's engines; one empty group if one engine has the whole node."""
        resources = self.session.resources
        if not resources.gpus_per_trial:
            return [()]
        count = node.engine_count(resources)
        # Only a process on the node knows the names of its GPUs (CUDA_VISIBLE_DEVICES of the raylet).
        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        probe = ray.remote(gpu_names).options(num_cpus=0, scheduling_strategy=there).remote(int(node.gpus))
        gpus = ray.get(probe, timeout=GPU_PROBE_SECONDS)
        each = len(gpus) // count
        return [tuple(gpus[start : start + each]) for start in range(0, count * each, each)]

    def _notify_changes(self, before: Mapping[str, Node]) -> None:
        lost = [node for key, node in before.items() if key not in self._nodes]
        for node in lost:
            label = self._labels.of(node.id)
            self.notify(f"nodes: lost {label} ({node.description}); its trials continue on other nodes")
        for key, node in self._nodes.items():
            if key not in before:
                self.notify(f"nodes: {self._labels.of(key)} has joined ({node.description})")
        if lost and not self._nodes:
            self.notify(
                f"nodes: no remaining node has room for a trial ({self._wanted}); waiting for one to join"
            )
