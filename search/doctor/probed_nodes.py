"""A process on every node of a running cluster that can be asked how things are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from search.doctor import node_probe
from search.execution.engines.nodes import node_names

ANSWER_SECONDS = 20.0
"""That a node may take to start a process that answers."""

Answers = dict[str, Any]
"""By node id."""


@dataclass
class ProbedNodes:
    """The nodes that are alive, each with a probe on it; those that do not answer are left out from then on."""

    names: dict[str, str]
    gpus: dict[str, int]
    probes: dict[str, Any]
    unreachable: dict[str, str] = field(default_factory=dict)

    @classmethod
    def alive(cls, wanted: Callable[[Mapping[str, float]], bool] = lambda resources: True) -> ProbedNodes:
        """Start a probe on each node of the cluster that this process has joined and whose resources are ``wanted``."""
        import ray
        from ray import cloudpickle
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        alive = [n for n in ray.nodes() if n["Alive"]]
        known = [n for n in alive if wanted(n["Resources"])]
        cloudpickle.register_pickle_by_value(node_probe)
        try:
            actor = ray.remote(node_probe.NodeProbe)
            probes = {
                n["NodeID"]: actor.options(
                    num_cpus=0,
                    max_concurrency=2,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(n["NodeID"], soft=False),
                ).remote()
                for n in known
            }
            # The class is pickled with the first of them; they must all be on their way before it is by name again.
        finally:
            cloudpickle.unregister_pickle_by_value(node_probe)
        gpus = {n["NodeID"]: int(n["Resources"].get("GPU", 0)) for n in known}
        return cls(node_names(alive), gpus, probes)

    def ask(self, call: Callable[[str, Any], Any], seconds: float = ANSWER_SECONDS) -> Answers:
        """What the probes that answer say to ``call``, made with a node's id and its probe, all at once."""
        return self.wait(self.begin(call), seconds)

    def begin(self, call: Callable[[str, Any], Any]) -> Mapping[Any, str]:
        """Make ``call`` of each probe; :meth:`wait` has the answers."""
        return {call(node, probe): node for node, probe in self.probes.items()}

    def ask_one(self, node: str, call: Callable[[Any], Any]) -> Answers:
        """What the probe of one node says; nothing if it does not answer."""
        return self.wait({call(self.probes[node]): node} if node in self.probes else {}, ANSWER_SECONDS)

    def wait(self, asked: Mapping[Any, str], seconds: float) -> Answers:
        """The answers to calls that were made; a node that gives none is lost."""
        import ray

        asked = {reference: node for reference, node in asked.items() if node in self.probes}
        done, late = ray.wait(list(asked), num_returns=len(asked), timeout=seconds) if asked else ([], [])
        answers: Answers = {}
        for reference in done:
            try:
                answers[asked[reference]] = ray.get(reference)
            except ray.exceptions.RayError as error:
                self._mark_unreachable(asked[reference], str(error).strip().splitlines()[-1])
        for reference in late:
            self._mark_unreachable(asked[reference], f"no answer within {seconds:.0f} s")
        return answers

    def _mark_unreachable(self, node: str, why: str) -> None:
        self.unreachable.setdefault(node, why)
        self.probes.pop(node, None)

    def close(self) -> None:
        """End the probes' processes."""
        import ray

        for probe in self.probes.values():
            ray.kill(probe)

    def label(self, node: str) -> str:
        """``node NAME``."""
        return f"node {self.names[node]}"
