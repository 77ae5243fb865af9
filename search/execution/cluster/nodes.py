"""Describes the nodes of a cluster: how many trials each has room for, how many threads they get, and its name."""

from __future__ import annotations

import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

CONNECT_SECONDS = 2.0
"""A running machine accepts a connection within this time, however busy it is, because its kernel does that."""


class TrialResources(Protocol):
    """What one trial requests from Ray, such as :class:`~search.config.search_config.SearchConfig`."""

    @property
    def cpus_per_trial(self) -> float:
        """Number of CPU cores."""
        ...

    @property
    def gpus_per_trial(self) -> float:
        """Number of GPUs, or a share of one."""
        ...

    @property
    def max_concurrent(self) -> int | None:
        """How many trials may run at the same time; None for as many as fit."""
        ...


@dataclass(frozen=True)
class FixedTrialResources:
    """:class:`TrialResources` as plain data, for processes that have no configuration."""

    cpus_per_trial: float
    gpus_per_trial: float
    max_concurrent: int | None = None


@dataclass(frozen=True)
class Node:
    """A living node.

    Attributes:
        id: Ray's id of the node, in hexadecimal digits.
        host: address of the node's raylet.
        port: port of the node's raylet.
        cpus: number of CPU cores, free or not.
        gpus: number of GPUs, free or not.
    """

    id: str
    host: str
    port: int
    cpus: float
    gpus: float

    def trial_capacity(self, resources: TrialResources) -> int:
        """Return how many trials fit on the node at the same time."""
        return trials_that_fit(self.cpus, self.gpus, resources)

    def engine_count(self, resources: TrialResources) -> int:
        """Return how many engines the node needs: one, or one for each group of GPUs that trials use."""
        if not resources.gpus_per_trial:
            return 1
        return int(self.gpus // max(1.0, resources.gpus_per_trial)) or 1

    def threads_per_trial(self, resources: TrialResources) -> int:
        """Return over how many threads one trial's operations may spread: its share of the node's cores.

        With more threads than cores the trials of a full node would wait for each other. One step of a MobileNetV2 at
        32 pixels takes 11 ms with two threads and 4.4 ms with one.
        """
        at_once = min(self.trial_capacity(resources), resources.max_concurrent or sys.maxsize)
        return max(1, int(self.cpus / max(1, at_once)))

    @property
    def description(self) -> str:
        """The node's resources, for messages."""
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"


def trials_that_fit(cpus: float, gpus: float, resources: TrialResources) -> int:
    """Return how many trials fit into a number of CPUs and GPUs."""
    fits = cpus / resources.cpus_per_trial
    if resources.gpus_per_trial:
        fits = min(fits, gpus / resources.gpus_per_trial)
    # Shares such as 0.1 are not exact in binary: 0.3 / 0.1 is less than 3.
    return int(fits + 1e-9)


def alive_nodes(nodes: Iterable[dict[str, Any]]) -> dict[str, Node]:
    """Return those of ``ray.nodes()`` that Ray takes for alive, by id."""
    found = {}
    for node in nodes:
        if node["Alive"]:
            resources = node["Resources"]
            found[node["NodeID"]] = Node(
                node["NodeID"],
                node["NodeManagerAddress"],
                int(node["NodeManagerPort"]),
                resources.get("CPU", 0.0),
                resources.get("GPU", 0.0),
            )
    return found


def accepts_connections(host: str, port: int) -> bool:
    """Return whether something accepts connections at an address."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def node_names(nodes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return a short, unique name for each of ``ray.nodes()``, by id.

    The name is the one given by ``ray start --node-name``, or else the host's name. If several nodes share it, their
    addresses are added; if several share an address too, the beginnings of their ids are added instead.
    """
    known = list(nodes)
    for scheme in _NAMING_SCHEMES:
        names = {node["NodeID"]: scheme(node) for node in known}
        if max(Counter(names.values()).values(), default=1) == 1:
            return names
    return names


class NodeLabels:
    """Names of nodes by id. A node keeps its first name, although later nodes may share its host's name."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, node: str) -> str:
        """Return the name of the node with this id; the beginning of the id if Ray does not know the node."""
        if node not in self._known:
            import ray

            self._known = {**node_names(ray.nodes()), **self._known}
        return self._known.setdefault(node, node[:6])


def _name(node: Mapping[str, Any]) -> str:
    # Without a name of its own a node gets its address as its name.
    named, address = node.get("NodeName") or "", str(node["NodeManagerAddress"])
    return named if named not in ("", address) else str(node["NodeManagerHostname"] or address)


def _name_and_address(node: Mapping[str, Any]) -> str:
    return f"{_name(node)} ({node['NodeManagerAddress']})"


def _name_and_id(node: Mapping[str, Any]) -> str:
    return f"{_name(node)}/{str(node['NodeID'])[:6]}"


_NAMING_SCHEMES: tuple[Callable[[Mapping[str, Any]], str], ...] = (_name, _name_and_address, _name_and_id)
"""From short to certainly unique; the first one that gives every node another name is used."""
