"""Reads how much of each node of a cluster is in use, once or regularly."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from search.execution.cluster.nodes import node_names
from search.execution.cluster.ray_internals import free_resources

POLL_SECONDS = 2.0
"""Pause between two readings on a small cluster."""

NODES_PER_SECOND = 50
"""On a large cluster the pause grows with the number of nodes, so that readings take little of the head's time."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeUsage:
    """A living node: its name, and its CPUs and GPUs, in use and in total."""

    name: str
    cpus_used: float
    cpus: float
    gpus_used: float
    gpus: float


def read_node_usage() -> tuple[NodeUsage, ...]:
    """Return the usage of all living nodes, sorted by name. It costs one request, however many nodes there are."""
    import ray

    # A node that joins between the two requests has no entry yet; its whole size then counts as in use for a moment.
    known = [n for n in ray.nodes() if n["Alive"]]
    names, free = node_names(known), free_resources()
    usages = []
    for node in known:
        total, left = node["Resources"], free.get(node["NodeID"], {})
        cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
        usages.append(
            NodeUsage(
                names[node["NodeID"]],
                round(cpus - left.get("CPU", 0.0), 2),
                cpus,
                round(gpus - left.get("GPU", 0.0), 2),
                gpus,
            )
        )
    return tuple(sorted(usages, key=lambda usage: usage.name))


@contextmanager
def polling_node_usage(notify: Callable[[tuple[NodeUsage, ...]], None]) -> Iterator[None]:
    """Pass the usage of the nodes to ``notify`` every few seconds inside the block.

    A thread reads it, because a request to a busy head may take long and the driver must not wait for it.
    """
    over = threading.Event()

    def poll() -> None:
        pause = 0.0
        while not over.wait(pause):
            try:
                nodes = read_node_usage()
                notify(nodes)
                pause = max(POLL_SECONDS, len(nodes) / NODES_PER_SECOND)
            # The search does not depend on this display, and the watchdog notices a lost cluster.
            except Exception:
                logger.debug("reading the usage of the nodes failed", exc_info=True)
                pause = 5 * POLL_SECONDS

    thread = threading.Thread(target=poll, name="unfreeze-node-use", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=POLL_SECONDS)
