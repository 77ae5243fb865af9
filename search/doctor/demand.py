"""Checks whether any node can run a trial, and which requests of the cluster can never be served."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from search.doctor.targets import CheckTargets
from search.execution.cluster.ray_internals import cluster_status
from search.records.finding import Finding, failed, ok, warning
from search.records.formatting import plural

RAY_UP_CONFIG = Path("~/ray_bootstrap_config.yaml")
"""Copy of the cluster file that ``ray up`` leaves on the head."""

Resources = Mapping[str, float]
"""Amounts by Ray's names, such as ``{"CPU": 4, "GPU": 0.5}``."""


def check_demand(
    targets: CheckTargets, nodes: Iterable[Mapping[str, Any]], types: Mapping[str, Resources]
) -> Iterator[Finding]:
    """Check that a trial fits a node, and that no pending request waits in vain.

    Args:
        nodes: as ``ray.nodes()`` lists them.
        types: resources of the node types that the autoscaler may start, by name.
    """
    alive = [n["Resources"] for n in nodes if n["Alive"]]
    yield check_request(targets, alive, types)
    waiting = list(pending())
    unservable = [
        f"{resources_text(bundle)} ({count} waiting)"
        for bundle, count in waiting
        if not any(fits(bundle, has) for has in (*alive, *types.values()))
    ]
    if unservable:
        yield failed(
            "requests", f"stays PENDING, because no node has {'; '.join(unservable)}. The largest of "
            f"{_largest_node(alive)}. Ask for less (--cpus-per-trial, --gpus-per-trial) or add a larger node"
        )  # fmt: skip
    elif waiting:
        count = sum(number for _, number in waiting)
        how = (
            "others are busy"
            if all(any(fits(b, has) for has in alive) for b, _ in waiting)
            else "nodes are started"
        )
        yield ok("requests", f"{plural(count, 'request')} wait while {how}")


def check_request(targets: CheckTargets, alive: list[Resources], types: Mapping[str, Resources]) -> Finding:
    """Check that a node could run a trial if nothing else ran there."""
    wanted = targets.trial_resources
    at_once = int(sum(_trials_at_once(wanted, has) for has in alive))
    if at_once:
        return ok("requests", f"{plural(at_once, 'trial')} at once, each with {resources_text(wanted)}")
    fitting = [name for name, has in types.items() if fits(wanted, has)]
    if fitting:
        return warning(
            "requests", f"no node that is up has {resources_text(wanted)}; the autoscaler has to start one of type "
            f"{', '.join(fitting)} first"
        )  # fmt: skip
    kinds = f", nor has a type that the autoscaler may start ({', '.join(types)})" if types else ""
    return failed(
        "requests", f"a trial asks for {resources_text(wanted)} and no node has that{kinds}: trials would "
        "stay PENDING. The "
        f"largest of {_largest_node(alive)}. Ask for less (--cpus-per-trial, --gpus-per-trial) or add a larger node"
    )  # fmt: skip


def pending() -> Iterator[tuple[Resources, int]]:
    """Return the resources that tasks and actors of this cluster wait for, each with the number of requests."""
    import ray

    status = cluster_status(ray.get_runtime_context().gcs_address)
    for demand in status.resource_demands.ray_task_actor_demand:
        for request in demand.bundles_by_count:
            yield request.bundle, request.count


def node_types(cluster_file: Path | None) -> dict[str, Resources]:
    """Return the resources of each node type that the autoscaler may start.

    They are read from ``cluster_file``, or from the file that ``ray up`` left on this machine if it is the head. The
    result is empty if there is neither or the file lists no resources.
    """
    import yaml

    file = (cluster_file or RAY_UP_CONFIG).expanduser()
    try:
        content = yaml.safe_load(file.read_text())
        types = content.get("available_node_types") or {}
        return {
            name: kind["resources"]
            for name, kind in types.items()
            if kind.get("resources") and kind.get("max_workers", 1) > 0
        }
    except (OSError, AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError):
        return {}


def fits(wanted: Resources, has: Resources) -> bool:
    """Return whether a node with the resources ``has`` satisfies the request ``wanted`` if nothing else runs on it."""
    # Ray adds fractions of GPUs in floating point: 10 trials of 0.1 GPU must fit one GPU.
    return all(has.get(name, 0) >= amount - 1e-9 for name, amount in wanted.items() if amount)


def resources_text(bundle: Resources) -> str:
    """``2 CPU and 0.5 GPU``. Resources by which Ray ties a task to a certain node (``node:ADDRESS``) are left out."""
    shown = [
        f"{amount:g} {name}" for name, amount in bundle.items() if amount and not name.startswith("node:")
    ]
    return " and ".join(shown) or "nothing"


def _trials_at_once(wanted: Resources, has: Resources) -> int:
    return int(min((has.get(n, 0) / a + 1e-9 for n, a in wanted.items() if a), default=0))


def _largest_node(alive: list[Resources]) -> str:
    if not alive:
        return "no node: none is alive"
    largest = max(alive, key=lambda has: (has.get("GPU", 0), has.get("CPU", 0)))
    return f"{plural(len(alive), 'node')} has " + resources_text(
        {n: largest.get(n, 0) for n in ("CPU", "GPU")}
    )
