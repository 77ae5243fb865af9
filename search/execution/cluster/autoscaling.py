"""Finds out how far an autoscaler may grow the cluster that a search has joined.

``ray up`` leaves its cluster file on the head, with the types of nodes and how many of each there may be. KubeRay
states no limit. Its clusters are recognised by the names of their node types.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from search.execution.cluster.nodes import TrialResources, trials_that_fit
from search.execution.cluster.ray_internals import cluster_status

BOOTSTRAP_FILE = Path("~/ray_bootstrap_config.yaml")
"""The cluster file as ``ray up`` leaves it on the head."""


@dataclass(frozen=True)
class NodeType:
    """A type of node that an autoscaler may add.

    Attributes:
        name: name of the type in the cluster file.
        max_nodes: how many nodes of it there may be.
        cpus: CPU cores of one node; None if the file does not state them.
        gpus: GPUs of one node.
    """

    name: str
    max_nodes: int
    cpus: float | None
    gpus: float

    def trial_capacity(self, resources: TrialResources) -> int:
        """Return how many trials one node has room for; 1 if its size is unknown."""
        return 1 if self.cpus is None else trials_that_fit(self.cpus, self.gpus, resources)

    @property
    def description(self) -> str:
        """Number, name and size, for messages."""
        size = "" if self.cpus is None else f" with {self.cpus:g} CPUs and {self.gpus:g} GPUs"
        return f"up to {self.max_nodes} of {self.name!r}{size}"


@dataclass(frozen=True)
class AutoscalingLimits:
    """What an autoscaler may add.

    Attributes:
        node_types: that it may add; empty if nothing states them.
        max_nodes: number of nodes of all types together.
    """

    node_types: tuple[NodeType, ...] = ()
    max_nodes: int = sys.maxsize

    def can_fit(self, resources: TrialResources) -> bool:
        """Return whether a trial may fit on a node that can be added."""
        return not self.node_types or any(kind.trial_capacity(resources) for kind in self.node_types)

    def trial_capacity(self, resources: TrialResources, now: int) -> int:
        """Return how many trials fit once the cluster is as large as it may become; ``now`` fit already.

        Where nothing states a limit, the search asks for twice as many trials as fit now, and at least 4: waiting
        trials make the autoscaler add nodes, and the cluster grows step by step.
        """
        if not self.node_types:
            return max(4, 2 * now)
        # An upper bound: the largest types first, as far as the limit for all types together allows.
        left, total = self.max_nodes, 0
        for kind in sorted(self.node_types, key=lambda kind: -kind.trial_capacity(resources)):
            count = min(left, kind.max_nodes)
            total, left = total + count * kind.trial_capacity(resources), left - count
        return max(now, total)

    @property
    def description(self) -> str:
        """The types of nodes, for messages."""
        return "; ".join(kind.description for kind in self.node_types) or "nodes of unknown types"


def find_autoscaling_limits(
    has_named_types: Callable[[], bool], living: int, file: Path | None = None
) -> AutoscalingLimits | None:
    """Return what the cluster's autoscaler may add; None if it may add nothing.

    Args:
        has_named_types: called if there is no cluster file: whether the node types have names
            (:func:`has_named_node_types`).
        living: number of nodes that the cluster has now.
        file: the cluster file; :data:`BOOTSTRAP_FILE` by default.
    """
    found = _read_limits(file or BOOTSTRAP_FILE)
    if found is None:
        return AutoscalingLimits() if has_named_types() else None
    # A cluster file of the provider "local" lists machines without their sizes. Once all of them are there, no more
    # can come.
    unknown_sizes = all(kind.cpus is None for kind in found.node_types)
    return None if unknown_sizes and living > found.max_nodes else found


def _read_limits(file: Path) -> AutoscalingLimits | None:
    try:
        content = yaml.safe_load(file.expanduser().read_text(encoding="utf-8"))
        most, head = int(content["max_workers"]), content.get("head_node_type")
        types = content["available_node_types"].items()
        # Ray's defaults where the file states no ``max_workers`` of a type: no further node of the head's
        # type, and of the others as many as the cluster may have.
        kinds = [_node_type(name, facts, most, default=0 if name == head else most) for name, facts in types]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return None  # not on a head that `ray up` made, or not a file that Ray could use
    growing = tuple(kind for kind in kinds if kind.max_nodes > 0)
    return AutoscalingLimits(growing, most) if growing else None


def _node_type(name: str, facts: Mapping[str, Any], most: int, default: int) -> NodeType:
    size = facts.get("resources") or {}
    cpus = float(size["CPU"]) if "CPU" in size else None
    most_of_type = min(int(facts.get("max_workers", default)), most)
    return NodeType(str(name), most_of_type, cpus, float(size.get("GPU", 0)))


def has_named_node_types(gcs_address: str) -> bool:
    """Return whether a program gave names to the node types. Ray's own names are ``node_`` and the node's id."""
    try:
        status = cluster_status(gcs_address)
        nodes = [*status.active_nodes, *status.idle_nodes]
        return any(n.ray_node_type_name not in ("", f"node_{n.node_id}") for n in nodes)
    except Exception:  # noqa: BLE001 - without an answer nothing is known to grow, which is safe to assume
        return False
