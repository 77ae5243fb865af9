"""Checks of what trials ask for: can any node give it, and what is the cluster waiting for?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from search.doctor.targets import CheckTargets
from search.records.finding import Finding, failed, ok, warning
from search.records.formatting import plural

RAY_UP_CONFIG = Path("~/ray_bootstrap_config.yaml")
"""Where ``ray up`` leaves its file on the head."""

Resources = Mapping[str, float]


def check_demand(
    places: CheckTargets, nodes: Iterable[Mapping[str, Any]], types: Mapping[str, Resources]
) -> Iterator[Finding]:
    """Whether a trial fits a node that is there or a node ``types`` that may come, and what else waits in vain."""
    alive = [n["Resources"] for n in nodes if n["Alive"]]
    yield check_request(places, alive, types)
    waiting = list(pending())
    hopeless = [
        f"{resources_text(bundle)} ({count} waiting)"
        for bundle, count in waiting
        if not any(fits(bundle, has) for has in (*alive, *types.values()))
    ]
    if hopeless:
        yield failed(
            "requests", f"PENDING for ever: no node has {'; '.join(hopeless)}. The largest of "
            f"{_largest_node(alive)}. Ask for "
            "less (--cpus-per-trial, --gpus-per-trial) or add a larger node"
        )  # fmt: skip
    elif waiting:
        count = sum(number for _, number in waiting)
        how = (
            "others are busy"
            if all(any(fits(b, has) for has in alive) for b, _ in waiting)
            else "nodes are started"
        )
        yield ok("requests", f"{plural(count, 'request')} wait while {how}")


def check_request(places: CheckTargets, alive: list[Resources], types: Mapping[str, Resources]) -> Finding:
    """Whether any node could run a trial."""
    wanted = {"CPU": places.cpus_per_trial, "GPU": places.gpus_per_trial}
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
    """What tasks and actors of this cluster wait for, and how many of them do."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status

    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    for demand in status.resource_demands.ray_task_actor_demand:
        for request in demand.bundles_by_count:
            yield request.bundle, request.count


def node_types(cluster_file: Path | None) -> dict[str, Resources]:
    """What each type of node that may be started has, by the cluster's file or the one that ``ray up`` left here."""
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
    """Whether a node has all that is wanted when nothing else runs on it."""
    return all(has.get(name, 0) >= amount - 1e-9 for name, amount in wanted.items() if amount)


def resources_text(bundle: Resources) -> str:
    """``2 CPU and 0.5 GPU``; Ray's own resources, such as a place on a certain node, are left out."""
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
