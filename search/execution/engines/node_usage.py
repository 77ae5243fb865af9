"""The nodes of a cluster, and how much of each is in use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from search.execution.engines.nodes import node_names

POLL_SECONDS = 2.0
"""Between two looks; more where there are many nodes, so that looking takes a small part of the head's time."""

NODES_PER_SECOND = 50

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeUsage:
    """A node that is alive: its name, and CPUs and GPUs, in use and in all."""

    name: str
    cpus_used: float
    cpus: float
    gpus_used: float
    gpus: float


def read_node_usage() -> tuple[NodeUsage, ...]:
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
            NodeUsage(
                names[node["NodeID"]],
                round(cpus - left.get("CPU", 0.0), 2),
                cpus,
                round(gpus - left.get("GPU", 0.0), 2),
                gpus,
            )
        )
    return tuple(sorted(uses, key=lambda use: use.name))


@contextmanager
def polling_node_usage(told: Callable[[tuple[NodeUsage, ...]], None]) -> Iterator[None]:
    """Tell of the nodes every few seconds meanwhile, from a thread of its own: the driver waits for nothing."""
    over = threading.Event()

    def look() -> None:
        pause = 0.0
        while not over.wait(pause):
            try:
                nodes = read_node_usage()
                told(nodes)
                pause = max(POLL_SECONDS, len(nodes) / NODES_PER_SECOND)
            except Exception:  # the search does not depend on it; a lost cluster is noticed elsewhere
                logger.debug("looking at the nodes failed", exc_info=True)
                pause = 5 * POLL_SECONDS

    thread = threading.Thread(target=look, name="unfreeze-node-use", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=POLL_SECONDS)
