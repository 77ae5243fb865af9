"""The only module that uses private API of Ray (what Tune needs is in :mod:`search.execution.tune_patches`).

Ray has no public API for some facts that a search needs: why a worker process died, what each node has free, the
address that ``auto`` stands for. Each function here wraps one private function or object. If Ray has changed it,
:class:`~trainables.errors.ClusterError` names the installed version, the tested versions and what to do.
``tests/search/execution/cluster/test_ray_internals.py`` fails when a new version of Ray changes what is used here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from trainables.errors import ClusterError
from trainables.private_api import TESTED_VERSIONS, expect_private_api

TESTED_RAY = TESTED_VERSIONS["ray"]
"""Versions of Ray (major and minor) with which the private API was tested, the oldest first."""

CLUSTER_ID_METHOD = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""The request that ``ray.init`` sends first. It needs a token where the cluster uses them, and changes nothing."""


@dataclass(frozen=True)
class WorkerExit:
    """How a worker process ended.

    Attributes:
        out_of_memory: whether Ray's memory monitor killed it.
        detail: Ray's description.
    """

    out_of_memory: bool
    detail: str


def unsupported_ray(what: str, error: BaseException) -> ClusterError:
    """Return the error to raise if the installed Ray lacks a private API. ``what`` names that API."""
    import ray

    tested = f"{TESTED_RAY[0]} to {TESTED_RAY[-1]}" if len(TESTED_RAY) > 1 else TESTED_RAY[0]
    return ClusterError(
        f"ray: version {ray.__version__} has changed the private API {what}, which unfreeze uses "
        f"({type(error).__name__}: {error}). Tested versions: {tested}. Install one of them: "
        f"pip install 'ray[default,tune]=={TESTED_RAY[-1]}.*'"
    )


@contextmanager
def private_api(what: str) -> Iterator[None]:
    """Translate the errors of a changed private API inside the block into a message with instructions.

    Raises:
        ClusterError: the API is gone or has another signature.
    """
    try:
        yield
    except (ImportError, AttributeError, TypeError) as error:
        raise unsupported_ray(what, error) from error


def require_private_api() -> None:
    """Check that the private API of Ray is there, before a search depends on it in the middle of a run.

    Raises:
        ClusterError: the installed Ray has changed it, or has another major version than the tested ones.
    """
    import ray

    purpose = "looks up nodes and worker processes"
    expect_private_api("ray", TESTED_RAY, purpose, (), ray.__version__, ClusterError)
    with private_api("ray._private, ray._raylet or ray.core.generated"):
        from ray._private.ray_logging import stdout_deduplicator
        from ray._private.services import canonicalize_bootstrap_address
        from ray._private.state import available_resources_per_node, state
        from ray.actor import ActorHandle
        from ray.core.generated.common_pb2 import WorkerExitType
        from ray.core.generated.gcs_pb2 import WorkerTableData

        worker = WorkerTableData()
        _ = (canonicalize_bootstrap_address, available_resources_per_node, state._connect_and_get_accessor)
        _ = (WorkerExitType.NODE_OUT_OF_MEMORY, ActorHandle._actor_id, stdout_deduplicator.skip_re)
        _ = (worker.pid, worker.worker_address.node_id, worker.is_alive, worker.exit_type, worker.exit_detail)


def resolve_head(address: str) -> str | None:
    """Return HOST:PORT of the head at ``address``, which may be ``auto``.

    Raises:
        ConnectionError: no cluster runs on this machine.
        ValueError: not an address.
    """
    with private_api("ray._private.services.canonicalize_bootstrap_address"):
        from ray._private.services import canonicalize_bootstrap_address

        resolved: str | None = canonicalize_bootstrap_address(address)
    return resolved


def free_resources() -> Mapping[str, Mapping[str, float]]:
    """Return the free resources of each node, by Ray's id of the node. One request, however many nodes there are."""
    with private_api("ray._private.state.available_resources_per_node"):
        from ray._private.state import available_resources_per_node

        free: Mapping[str, Mapping[str, float]] = available_resources_per_node()
    return free


def worker_exit(node: str, pid: int) -> WorkerExit | None:
    """Return how a worker process of a node ended; None while Ray has not noticed its end."""
    with private_api("ray._private.state.state.get_worker_table"):
        from ray._private.state import state
        from ray.core.generated.common_pb2 import WorkerExitType
        from ray.core.generated.gcs_pb2 import WorkerTableData

        for row in state._connect_and_get_accessor().get_worker_table():
            worker = WorkerTableData.FromString(row)
            # The system reuses process numbers: a dead worker may have had the number of a living one.
            if worker.pid == pid and worker.worker_address.node_id.hex() == node and not worker.is_alive:
                killed = worker.exit_type == WorkerExitType.NODE_OUT_OF_MEMORY
                return WorkerExit(killed, str(worker.exit_detail))
    return None


def drop_cluster_errors() -> None:
    """Keep the cluster's error messages off this process's standard output.

    Ray prints them for every driver, regardless of ``log_to_driver``, and has no public switch. A pattern that matches
    every line makes Ray's own filter drop them all.
    """
    with private_api("ray._private.ray_logging.stdout_deduplicator"):
        from ray._private.ray_logging import stdout_deduplicator

        # Without this check a renamed attribute would be set silently and filter nothing.
        _ = stdout_deduplicator.skip_re
        stdout_deduplicator.skip_re = re.compile("")


def validate_cluster_file(content: dict[str, Any]) -> None:
    """Check the content of a cluster file as ``ray up`` does.

    Raises:
        Exception: of many types, if the content is wrong: Ray asserts, looks up keys and raises by hand.
    """
    try:
        from ray.autoscaler._private.util import prepare_config, validate_config
    except ImportError as error:
        raise unsupported_ray("ray.autoscaler._private.util", error) from error
    validate_config(prepare_config(content))


def cluster_status(gcs_address: str) -> Any:
    """Return the autoscaler's view of the cluster: its nodes with their types, and the resources that tasks wait for.

    Raises:
        ClusterError: the installed Ray has no such function.
    """
    with private_api("ray.autoscaler.v2.sdk.get_cluster_status"):
        from ray.autoscaler.v2.sdk import get_cluster_status
    return get_cluster_status(gcs_address)


def call_in_actor(actor: Any, function: Callable[[Any], Any]) -> Any:
    """Call ``function`` with the actor's object in the actor's process; return Ray's future of the result."""
    with private_api("ActorHandle.__ray_call__"):
        method = actor.__ray_call__
    return method.remote(function)


def actor_id(actor: Any) -> str:
    """Return Ray's id of an actor, in hexadecimal digits."""
    with private_api("ActorHandle._actor_id"):
        found: str = actor._actor_id.hex()
    return found
