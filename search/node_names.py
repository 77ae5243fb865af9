"""What the nodes of a cluster are called on a screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def node_names(nodes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """A short name for each of ``ray.nodes()`` by its id, each of another: the host's as far as that tells them apart.

    A name given by ``ray start --node-name`` goes before the host's; nodes of one host get their address, too, and
    those of one address the beginning of their id.
    """
    known = list(nodes)
    for words in _WORDS:
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


_WORDS: tuple[Callable[[Mapping[str, Any]], str], ...] = (_name, _with_address, _with_id)
