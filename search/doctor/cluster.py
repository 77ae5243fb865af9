"""Checks a running Ray cluster: whether it can be joined, has room for a trial, and has nodes that agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from search.doctor.demand import check_demand, node_types
from search.doctor.node_checks import check_nodes
from search.doctor.probed_nodes import ProbedNodes
from search.doctor.targets import CheckTargets
from search.execution.cluster.head_check import check_head
from search.records.finding import Finding, failed, ok
from search.records.formatting import plural


def check_cluster(targets: CheckTargets) -> Iterator[Finding]:
    """Check the cluster at ``targets.address``, from the outside in.

    Raises:
        ValueError: ``targets`` names no address.
    """
    if targets.address is None:
        raise ValueError("address: expected the address of a cluster, received None")
    head = check_head(targets.address)
    if head.grade == "failed":
        yield head
        return
    import ray

    from search.doctor.joining import ray_connection
    from trainables.errors import ClusterError

    try:
        with ray_connection(targets.address):
            yield ok("ray", f"{targets.address}: joined")
            nodes = ray.nodes()  # lost ones included, with the reasons
            yield ok("nodes", f"{plural(sum(n['Alive'] for n in nodes), 'node')} up{_newest_losses(nodes)}")
            yield from check_demand(targets, nodes, node_types(targets.cluster_file))
            yield from check_nodes(ProbedNodes.alive(), targets)
    except ClusterError as error:
        yield failed("ray", str(error))


def _newest_losses(nodes: Sequence[Mapping[str, Any]], max_nodes: int = 3) -> str:
    """Return the last nodes that were lost, with Ray's reasons; empty if none was."""
    lost = [n for n in nodes if not n["Alive"] and n.get("DeathReasonMessage")]
    return "".join(
        f"; lost: {n['NodeManagerHostname']} ({n['DeathReasonMessage']})" for n in lost[-max_nodes:]
    )
