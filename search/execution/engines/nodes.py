"""The nodes of a cluster as a search sees them: how many trials each takes, and with how many threads.

What the nodes of a cluster are called on a screen.
"""

from __future__ import annotations

import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


def node_names(nodes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """A short name for each of ``ray.nodes()`` by its id, each of another: the host's as far as that tells them apart.

    A name given by ``ray start --node-name`` goes before the host's; nodes of one host get their address, too, and
    those of one address the beginning of their id.
    """
    known = list(nodes)
    for words in _NAMING_SCHEMES:
        names = {node["NodeID"]: words(node) for node in known}
        if max(Counter(names.values()).values(), default=1) == 1:
            return names
    return names


class NodeLabels:
    """Names of nodes by id, looked up when a new one appears; the first name of a node stays."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, node: str) -> str:
        """What the node of this id is called; the beginning of its id if Ray does not know it."""
        if node not in self._known:
            import ray

            self._known = {**node_names(ray.nodes()), **self._known}
        return self._known.setdefault(node, node[:6])


def _name(node: Mapping[str, Any]) -> str:
    named, address = node.get("NodeName") or "", str(node["NodeManagerAddress"])
    return named if named not in ("", address) else str(node["NodeManagerHostname"] or address)


def _with_address(node: Mapping[str, Any]) -> str:
    return f"{_name(node)} ({node['NodeManagerAddress']})"


def _with_id(node: Mapping[str, Any]) -> str:
    return f"{_name(node)}/{str(node['NodeID'])[:6]}"


_NAMING_SCHEMES: tuple[Callable[[Mapping[str, Any]], str], ...] = (_name, _with_address, _with_id)


CONNECT_SECONDS = 2.0
"""A machine that lives takes a connection within this time, however busy it is: its kernel does."""


class TrialResources(Protocol):
    """What one trial asks for: :class:`~search.config.search_config.SearchConfig`."""

    @property
    def cpus_per_trial(self) -> float:
        """CPU cores."""
        ...

    @property
    def gpus_per_trial(self) -> float:
        """GPUs, or a share of one."""
        ...

    @property
    def max_concurrent(self) -> int | None:
        """How many trials may run at once; None for as many as fit."""
        ...


@dataclass(frozen=True)
class FixedTrialResources:
    """A :class:`TrialResources` by itself."""

    cpus_per_trial: float
    gpus_per_trial: float
    max_concurrent: int | None = None


@dataclass(frozen=True)
class Node:
    """A living node. ``host`` and ``port`` are those of its raylet; ``cpus`` and ``gpus`` what it has in all."""

    id: str
    host: str
    port: int
    cpus: float
    gpus: float

    def trials(self, demand: TrialResources) -> int:
        """How many trials fit on it at once."""
        return trials_that_fit(self.cpus, self.gpus, demand)

    def engines(self, demand: TrialResources) -> int:
        """How many engines share it: one for the whole node, or one for each GPU that trials use apart."""
        return int(self.gpus // max(1.0, demand.gpus_per_trial)) or 1 if demand.gpus_per_trial else 1

    def threads(self, demand: TrialResources) -> int:
        """Threads that one trial's operations may spread over: its share of the node's cores.

        More would wait for each other where trials fill the node: a step of a MobileNetV2 at 32 pixels takes 11 ms
        with two threads, 4.4 with one.
        """
        at_once = min(self.trials(demand), demand.max_concurrent or sys.maxsize)
        return max(1, int(self.cpus / max(1, at_once)))

    @property
    def words(self) -> str:
        """What it has."""
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"


def trials_that_fit(cpus: float, gpus: float, demand: TrialResources) -> int:
    """How many trials fit into so many CPUs and GPUs."""
    fits = cpus / demand.cpus_per_trial
    if demand.gpus_per_trial:
        fits = min(fits, gpus / demand.gpus_per_trial)
    return int(fits + 1e-9)


def alive_nodes(nodes: Iterable[dict[str, Any]]) -> dict[str, Node]:
    """Those of ``ray.nodes()`` that Ray takes for alive, by id."""
    found = {}
    for node in nodes:
        if node["Alive"]:
            has = node["Resources"]
            found[node["NodeID"]] = Node(
                node["NodeID"],
                node["NodeManagerAddress"],
                int(node["NodeManagerPort"]),
                has.get("CPU", 0.0),
                has.get("GPU", 0.0),
            )
    return found


def accepts_connections(host: str, port: int) -> bool:
    """Whether something takes connections there."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
