"""Starts engines as Ray actors, and finds the engine that serves a process.

There is one engine on each node, or one for each group of GPUs, and all are named actors: whichever process needs an
engine first starts it, and every other process finds it by its name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.execution.cluster.nodes import alive_nodes
from search.execution.engines.engine_client import InProcessEngine, SharedEngine
from search.execution.engines.logged_engine import LoggedEngine
from search.execution.engines.messages import SessionSpec

if TYPE_CHECKING:
    from search.execution.engines.jobs import Job

NAMESPACE = "unfreeze"
"""Ray namespace of all engines."""

MAX_CONCURRENT_CALLS = 64
"""Calls that an engine serves at the same time; far more than the trials of one machine."""


def start_engine(node: str, session: SessionSpec, threads: int, gpus: Sequence[str] = ()) -> Any:
    """Return the actor handle of a session's engine on a node; start the engine if it does not run yet.

    The engine requests no resources from Ray, because the trial actors that use it request them. Ray restarts the
    engine whenever its process dies.

    Args:
        node: Ray's id of the node.
        session: the session that the engine belongs to.
        threads: number of threads for one operation of TensorFlow.
        gpus: the GPUs that the engine sees. Where trials request GPUs there is one engine for each group of GPUs, so
            that trials which share a GPU share the process that owns its memory.
    """
    name = "/".join([session.name, "engine", node, *([",".join(gpus)] if gpus else [])])
    options: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        # Driver and trial actors may ask for the same engine at the same moment: Ray makes one of it.
        "get_if_exists": True,
        "num_cpus": 0,
        "max_concurrency": MAX_CONCURRENT_CALLS,
        "max_restarts": -1,
        # The engine must not start elsewhere: trial actors kill it by its process number, and it was assigned
        # this node's GPUs.
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
    seen = gpus or _gpus_without_request(session)
    return ray.remote(LoggedEngine).options(**options).remote(threads, session, seen)


def connect_engine(session: SessionSpec) -> SharedEngine | InProcessEngine:
    """Return the engine for the trials of this process: its node's, or one inside this process."""
    context, resources = ray.get_runtime_context(), session.resources
    node = alive_nodes(ray.nodes())[context.get_node_id()]
    threads = node.threads_per_trial(resources)
    gpus = context.get_accelerator_ids().get("GPU", []) if resources.gpus_per_trial else []
    if not session.reuse.processes:
        seen = gpus or _gpus_without_request(session)
        return InProcessEngine(LoggedEngine(threads, session, seen))
    return SharedEngine(start_engine(node.id, session, threads, gpus))


def run_on_local_engine(session: SessionSpec, job: Job[Any]) -> Any:
    """Run a job on the engine of the node where Ray placed this task."""
    engine = connect_engine(session)
    engine.wait_until_ready()
    return engine.call("run", job)


def gpu_names(count: int) -> list[str]:
    """Return Ray's names of the ``count`` GPUs of the node where this runs."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",") if named else [str(number) for number in range(count)]


def _gpus_without_request(session: SessionSpec) -> Sequence[str] | None:
    """Return the GPUs of trials that request none.

    On the user's own machine that is every GPU there is. On a cluster it is none, because Ray may give the GPUs to
    another job.
    """
    return () if session.joined else None
