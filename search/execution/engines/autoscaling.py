"""How far an autoscaler may grow the cluster that a search has joined.

``ray up`` leaves its file on the head, with the kinds of nodes and how many there may be. Where another program does
the growing (KubeRay), nothing says how far; that it is at work shows in the names that it gives to kinds of nodes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from search.execution.engines.nodes import TrialResources, trials_that_fit

BOOTSTRAP_FILE = Path("~/ray_bootstrap_config.yaml")
"""What ``ray up`` leaves on the head."""


@dataclass(frozen=True)
class NodeType:
    """A kind of node: up to ``most`` of them; ``cpus`` is None where only the node itself will tell what it has."""

    name: str
    most: int
    cpus: float | None
    gpus: float

    def trials(self, demand: TrialResources) -> int:
        """How many trials such a node takes; at least one is hoped for where that is unknown."""
        return 1 if self.cpus is None else trials_that_fit(self.cpus, self.gpus, demand)

    @property
    def words(self) -> str:
        """What it is."""
        has = "" if self.cpus is None else f" with {self.cpus:g} CPUs and {self.gpus:g} GPUs"
        return f"up to {self.most} of {self.name!r}{has}"


@dataclass(frozen=True)
class AutoscalingLimits:
    """What an autoscaler may add: ``kinds`` of nodes, ``most`` of them together. No kinds: nobody says which."""

    kinds: tuple[NodeType, ...] = ()
    most: int = sys.maxsize

    def fits(self, demand: TrialResources) -> bool:
        """Whether a trial may fit on what can come."""
        return not self.kinds or any(kind.trials(demand) for kind in self.kinds)

    def trials(self, demand: TrialResources, now: int) -> int:
        """How many trials fit when all is there that can come; ``now`` fit already.

        Where nobody says how much that is: twice as many as now, and some, so that it grows step by step.
        """
        if not self.kinds:
            return max(4, 2 * now)
        left, total = self.most, 0
        for kind in sorted(self.kinds, key=lambda kind: -kind.trials(demand)):
            count = min(left, kind.most)
            total, left = total + count * kind.trials(demand), left - count
        return max(now, total)

    @property
    def words(self) -> str:
        """What may come."""
        return "; ".join(kind.words for kind in self.kinds) or "nodes of a kind that nobody names"


def find_autoscaling_limits(
    named: Callable[[], bool], living: int, file: Path | None = None
) -> AutoscalingLimits | None:
    """What the autoscaler of the cluster, which has so many ``living`` nodes, may add; None if nothing.

    ``named`` is asked where no file tells: whether the nodes' kinds have names (:func:`has_named_node_types`).
    ``file`` is
    :data:`BOOTSTRAP_FILE` unless another is given.
    """
    found = _from_file(file or BOOTSTRAP_FILE)
    if found is None:
        return AutoscalingLimits() if named() else None
    unknown = all(kind.cpus is None for kind in found.kinds)
    return None if unknown and living > found.most else found  # of a list of machines, all are there


def _from_file(file: Path) -> AutoscalingLimits | None:
    try:
        content = yaml.safe_load(file.expanduser().read_text(encoding="utf-8"))
        most, head = int(content["max_workers"]), content.get("head_node_type")
        types = content["available_node_types"].items()
        kinds = [_node_type(name, facts, most, unless=0 if name == head else most) for name, facts in types]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return None  # not on a head that `ray up` made, or not a file that Ray could use
    growing = tuple(kind for kind in kinds if kind.most > 0)
    return AutoscalingLimits(growing, most) if growing else None


def _node_type(name: str, facts: Mapping[str, Any], most: int, unless: int) -> NodeType:
    has = facts.get("resources") or {}
    cpus = float(has["CPU"]) if "CPU" in has else None
    return NodeType(
        str(name), min(int(facts.get("max_workers", unless)), most), cpus, float(has.get("GPU", 0))
    )


def has_named_node_types(gcs_address: str) -> bool:
    """Whether somebody gave the nodes' kinds names; Ray's own are ``node_`` and the node's id."""
    try:
        from ray.autoscaler.v2.sdk import get_cluster_status

        status = get_cluster_status(gcs_address)
        nodes = [*status.active_nodes, *status.idle_nodes]
        return any(n.ray_node_type_name not in ("", f"node_{n.node_id}") for n in nodes)
    except Exception:  # noqa: BLE001 - a Ray that does not say: then nothing is known to grow
        return False
