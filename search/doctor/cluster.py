"""Checks of a running Ray cluster, from outside in: can it be joined, is it able to run trials, do its nodes agree?"""

from __future__ import annotations

from collections.abc import Iterator

from search.doctor.demand import check_demand, node_types
from search.doctor.node_checks import check_nodes
from search.doctor.probed_nodes import ProbedNodes
from search.doctor.targets import CheckTargets
from search.execution.engines.head_check import check_head
from search.records.finding import Finding, failed, ok
from search.records.formatting import plural


def check_cluster(places: CheckTargets) -> Iterator[Finding]:
    """Findings about the cluster at ``places.address``."""
    if places.address is None:
        raise ValueError("address: expected a cluster's, received None")
    knocked = check_head(places.address)
    if knocked.grade == "failed":
        yield knocked
        return
    import ray

    from search.doctor.joining import ray_connection
    from trainables.errors import ClusterError

    try:
        with ray_connection(places.address):
            yield ok("ray", f"{places.address}: joined")
            known = ray.nodes()
            lost = [n for n in known if not n["Alive"] and n.get("DeathReasonMessage")]
            alive = sum(n["Alive"] for n in known)
            gone = "".join(
                f"; lost: {n['NodeManagerHostname']} ({n['DeathReasonMessage']})" for n in lost[-3:]
            )
            yield ok("nodes", f"{plural(alive, 'node')} up{gone}")
            yield from check_demand(places, known, node_types(places.cluster_file))
            yield from check_nodes(ProbedNodes.alive(), places)
    except ClusterError as error:
        yield failed("ray", str(error))
