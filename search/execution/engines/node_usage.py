"""The nodes of a cluster, and how much of each is in use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from search.execution.engines.nodes import node_names

SECONDS = 2.0
"""Between two looks; more where there are many nodes, so that looking takes a small part of the head's time."""

NODES_A_SECOND = 50

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeUse:
    """A node that is alive: its name, and CPUs and GPUs, in use and in all."""

    name: str
    cpus_used: float
    cpus: float
    gpus_used: float
    gpus: float


def nodes_in_use() -> tuple[NodeUse, ...]:
    """All living nodes by name. One request to the head, however many there are."""
    import ray
    from ray._private.state import available_resources_per_node

    known = [n for n in ray.nodes() if n["Alive"]]
    names, free = node_names(known), available_resources_per_node()
    uses = []
    for node in known:
        has, left = node["Resources"], free.get(node["NodeID"], {})
        cpus, gpus = has.get("CPU", 0.0), has.get("GPU", 0.0)
        uses.append(
            NodeUse(
                names[node["NodeID"]],
                round(cpus - left.get("CPU", 0.0), 2),
                cpus,
                round(gpus - left.get("GPU", 0.0), 2),
                gpus,
            )
        )
    return tuple(sorted(uses, key=lambda use: use.name))


@contextmanager
def watched(told: Callable[[tuple[NodeUse, ...]], None]) -> Iterator[None]:
    """Tell of the nodes every few seconds meanwhile, from a thread of its own: the driver waits for nothing."""
    over = threading.Event()

    def look() -> None:
        pause = 0.0
        while not over.wait(pause):
            try:
                nodes = nodes_in_use()
                told(nodes)
                pause = max(SECONDS, len(nodes) / NODES_A_SECOND)
            except Exception:  # the search does not depend on it; a lost cluster is noticed elsewhere
                logger.debug("looking at the nodes failed", exc_info=True)
                pause = 5 * SECONDS

    thread = threading.Thread(target=look, name="unfreeze-node-use", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=SECONDS)
