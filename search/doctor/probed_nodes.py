"""Runs a probe on every node of a running cluster and collects the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from search.doctor import node_probe
from search.execution.cluster.nodes import node_names

ANSWER_SECONDS = 20.0
"""Time for a node to start a process and answer."""

Answers = dict[str, Any]
"""Answers by node ID."""


@dataclass
class ProbedNodes:
    """The living nodes of a cluster, each with a probe.

    A node that fails to answer once is not asked again.

    Attributes:
        names: of the nodes, by node ID.
        gpus: that Ray knows on each node.
        probes: actors of :class:`search.doctor.node_probe.NodeProbe`.
        unreachable: why nodes did not answer.
    """

    names: dict[str, str]
    gpus: dict[str, int]
    probes: dict[str, Any]
    unreachable: dict[str, str] = field(default_factory=dict)

    @classmethod
    def alive(cls, wanted: Callable[[Mapping[str, float]], bool] = lambda resources: True) -> ProbedNodes:
        """Start a probe on each living node of the joined cluster.

        Args:
            wanted: whether to include a node, by its resources.
        """
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
                    num_cpus=0,  # a probe must start on busy nodes, too
                    max_concurrency=2,  # TensorFlow may take 45 s; the other calls are answered meanwhile
                    scheduling_strategy=NodeAffinitySchedulingStrategy(n["NodeID"], soft=False),
                ).remote()
                for n in known
            }
            # Ray pickles the class with the first actor. All actors must be submitted before the module is pickled by
            # name again, because the nodes may not have it.
        finally:
            cloudpickle.unregister_pickle_by_value(node_probe)
        gpus = {n["NodeID"]: int(n["Resources"].get("GPU", 0)) for n in known}
        return cls(node_names(alive), gpus, probes)

    def ask(self, call: Callable[[str, Any], Any], seconds: float = ANSWER_SECONDS) -> Answers:
        """Call all probes at once and return the answers that arrive within ``seconds``.

        Args:
            call: makes the remote call, given a node's ID and its probe.
        """
        return self.wait(self.begin(call), seconds)

    def begin(self, call: Callable[[str, Any], Any]) -> Mapping[Any, str]:
        """Start ``call`` on each probe. :meth:`wait` returns the answers."""
        return {call(node, probe): node for node, probe in self.probes.items()}

    def ask_one(self, node: str, call: Callable[[Any], Any]) -> Answers:
        """Call the probe of one node; the result is empty if it does not answer."""
        return self.wait({call(self.probes[node]): node} if node in self.probes else {}, ANSWER_SECONDS)

    def wait(self, asked: Mapping[Any, str], seconds: float) -> Answers:
        """Collect the answers to calls. A node that raises or is late counts as unreachable from then on."""
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
        """End the processes of the probes."""
        import ray

        for probe in self.probes.values():
            ray.kill(probe)

    def label(self, node: str) -> str:
        """Return the node as messages name it: ``node NAME``."""
        return f"node {self.names[node]}"
