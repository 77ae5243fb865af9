"""Engine actor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.execution.engines.engine_client import InProcessEngine, SharedEngine
from search.execution.engines.logged_engine import LoggedEngine
from search.execution.engines.nodes import FixedTrialResources, alive_nodes
from trainables.reuse import Reuse

NAMESPACE = "unfreeze"


MAX_CONCURRENT_CALLS = 64
"""Calls that an engine takes at once; far more than trials on one machine."""


def start_engine(node: str, session: Mapping[str, Any], threads: int, gpus: Sequence[str] = ()) -> Any:
    """The engine of a session on a node, started if need be. Ray restarts it if its process dies.

    It asks Ray for nothing: trials do. ``gpus`` are those that it sees: where trials ask for GPUs there is an engine
    for each, so that trials which share a GPU share the process that owns its memory.
    """
    name = "/".join([session["name"], "engine", node, *([",".join(gpus)] if gpus else [])])
    options: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "get_if_exists": True,
        "num_cpus": 0,
        "max_concurrency": MAX_CONCURRENT_CALLS,
        "max_restarts": -1,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
    seen = gpus or _gpus_without_request(session)
    return ray.remote(LoggedEngine).options(**options).remote(threads, **_engine_options(session), gpus=seen)


def connect_engine(session: Mapping[str, Any]) -> SharedEngine | InProcessEngine:
    """The engine for the trials of this process: its node's, or one of its own that ends with it."""
    context, share = ray.get_runtime_context(), FixedTrialResources(*session["share"])
    node = alive_nodes(ray.nodes())[context.get_node_id()]
    threads = node.threads(share)
    gpus = context.get_accelerator_ids().get("GPU", []) if share.gpus_per_trial else []
    if not session["reuse"]["processes"]:
        return InProcessEngine(
            LoggedEngine(threads, **_engine_options(session), gpus=gpus or _gpus_without_request(session))
        )
    return SharedEngine(start_engine(node.id, session, threads, gpus))


def call_local_engine(session: Mapping[str, Any], method: str, *arguments: Any) -> Any:
    """Call a method of the engine of the node where this runs, as a task of Ray's."""
    engine = connect_engine(session)
    engine.enter()
    return engine.ask(method, *arguments)


def visible_gpus(count: int) -> list[str]:
    """What Ray calls the ``count`` GPUs of the node where this runs."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",") if named else [str(number) for number in range(count)]


def _engine_options(session: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "verbose": session["verbose"],
        "reuse": Reuse(**session["reuse"]),
        "numerics": session["numerics"],
        "copies": session["joined"],
    }


def _gpus_without_request(session: Mapping[str, Any]) -> Sequence[str] | None:
    """The GPUs of trials that ask for none: on one's own machine what is there, on a cluster nothing."""
    return () if session["joined"] else None
