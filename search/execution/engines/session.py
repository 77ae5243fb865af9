"""Connects to Ray for the duration of one command, and keeps engines on the nodes meanwhile."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.config.search_config import SearchConfig
from search.execution.cluster.cluster_watchdog import ClusterWatchdog
from search.execution.cluster.nodes import FixedTrialResources
from search.execution.engines.messages import SessionSpec
from trainables.errors import ClusterError

if TYPE_CHECKING:
    from search.execution.engines.engine_pool import EnginePool

RAY_ENVIRONMENT = {
    # Ray would hide the GPUs from processes that request none; the engines request none and choose for themselves.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # The search shows its own progress, so Ray's and Tune's output is switched off.
    "RAY_AIR_NEW_OUTPUT": "0",
    # The filter of repeated lines must be on: drop_cluster_errors of ray_internals uses it.
    "RAY_DEDUP_LOGS": "1",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_LOGGER_LEVEL": "ERROR",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # The search handles Ctrl-C itself (search.execution.stop_request).
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A trial that ends with a reason reports no metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # The ledger is the state of a search: Tune's own snapshots would only cost time.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # The searcher itself limits how many trials may wait for a node.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",
}
"""Settings of Ray and Tune. A variable that the user has set keeps its value."""

NODE_POLL_SECONDS = 3.0
"""Pause between two looks at which nodes there are."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """A connection to Ray, with engines that outlive single trials.

    Attributes:
        spec: what other processes need to find the engines.
        engine_pool: the engines of all nodes.
        watchdog: notices when the cluster is lost.
    """

    spec: SessionSpec
    engine_pool: EnginePool
    watchdog: ClusterWatchdog = field(default_factory=lambda: ClusterWatchdog({}))

    @property
    def capacity(self) -> int:
        """How many trials may be handed to Ray at this moment; it changes as nodes join and leave."""
        return self.engine_pool.capacity

    @property
    def engines(self) -> Sequence[Any]:
        """Actor handles of the engines of the nodes that are there at this moment; there may be none."""
        return self.engine_pool.engines

    def require_cluster(self) -> None:
        """Do nothing as long as the cluster is there.

        Raises:
            ClusterError: the cluster's head, or Ray on this machine, is lost.
        """
        if self.watchdog.lost:
            raise ClusterError(self.watchdog.lost)


@contextmanager
def connect(
    config: SearchConfig,
    verbose: bool = False,
    notify: Callable[[str], None] = lambda message: None,
    on_cluster_lost: Callable[[], None] = lambda: None,
) -> Iterator[Session]:
    """Join the cluster at ``config.address``, or start Ray on this machine, and start engines.

    Args:
        config: of the search.
        verbose: let Ray and TensorFlow print their messages.
        notify: receives a line for each node that joins or leaves.
        on_cluster_lost: called before this process ends itself because the cluster is lost and a call of Ray hangs.

    Raises:
        ClusterError: there is no cluster, or no node can run a trial.
    """
    # Ray and Tune read some of these variables when they are imported, so the variables are set before the
    # import.
    for key, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import ray

    from search.execution.cluster.ray_internals import require_private_api

    require_private_api()
    # A program that has connected to Ray itself keeps its connection after the search.
    mine = not ray.is_initialized()
    with _quiet_ray(verbose), tempfile.TemporaryDirectory(prefix="unfreeze-") as empty:
        if mine:
            start_ray(config, verbose, Path(empty))
        watchdog = ClusterWatchdog(_endpoints(), before_exit=on_cluster_lost)
        with watchdog.watching():
            try:
                session = _start_session(config, verbose, notify, watchdog)
                with _polling_nodes(session.engine_pool):
                    yield session
            finally:
                # This thread shuts Ray down, after everything else is done. If another thread did, Ray would abort the
                # process when this thread dropped one of its object references meanwhile. Without its cluster Ray
                # would wait for it, so then the connection is left as it is.
                if mine and not watchdog.lost:
                    ray.shutdown()


def start_ray(config: SearchConfig, verbose: bool, empty: Path) -> None:
    """Join the cluster at ``config.address``, or start Ray on this machine; ``empty`` is an empty folder.

    Raises:
        ClusterError: there is no cluster, or Ray does not start.
    """
    import ray

    options: dict[str, Any] = {
        "log_to_driver": verbose,
        "logging_level": logging.INFO if verbose else logging.ERROR,
        "configure_logging": True,
    }
    if config.address:
        _require_head(config.address)
        options["address"] = config.address
    else:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": os.cpu_count() or 1,
            **quoted_python(),
        }
    try:
        with _in_empty_folder(empty):
            ray.init(**options)
    except Exception as error:
        if not (isinstance(error, (ConnectionError, RuntimeError, ValueError)) or _is_start_timeout(error)):
            raise
        from search.execution.cluster.head_check import readable_connection_error

        where = config.address or "this machine"
        words = readable_connection_error(error)
        raise ClusterError(f"address: expected a running Ray cluster, received {where!r}: {words}") from error


def _is_start_timeout(error: Exception) -> bool:
    """Return whether Ray's own processes did not start in time. Ray raises a bare Exception for that."""
    return type(error) is Exception and "timed out" in str(error)


def _require_head(address: str) -> None:
    """Find out within seconds why this machine cannot join a cluster, which Ray reports after minutes or not at all."""
    from search.execution.cluster.head_check import check_head

    found = check_head(address)
    if found.grade == "failed":
        raise ClusterError(f"address: expected a running Ray cluster, received {address!r}: {found.words}")


def quoted_python() -> dict[str, Any]:
    """Return an option of ``ray.init`` that quotes the interpreter's path if it has to be quoted.

    Ray hands the path to a shell unquoted, so a path with a space in it would not start any worker.
    """
    quoted = shlex.quote(sys.executable)
    return {"runtime_env": {"py_executable": quoted}} if quoted != sys.executable else {}


@contextmanager
def _in_empty_folder(empty: Path) -> Iterator[None]:
    """Change to an empty folder inside the block; the folder has to live as long as the connection.

    Ray puts the driver's working directory first on every worker's import path and starts workers there. A file called
    ``search.py`` in it would shadow this package.
    """
    before = Path.cwd()
    os.chdir(empty)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _quiet_ray(verbose: bool) -> Iterator[None]:
    """Keep Ray's messages off the screen: the ledger has the end of every trial, and lost nodes are reported here."""
    tune_logger = logging.getLogger("ray.tune")
    before = tune_logger.level
    if not verbose:
        from search.execution.cluster.ray_internals import drop_cluster_errors

        tune_logger.setLevel(logging.CRITICAL)
        with suppress(ClusterError):  # more lines on the screen are no reason to refuse a search
            drop_cluster_errors()
    try:
        yield
    finally:
        tune_logger.setLevel(before)


def _start_session(
    config: SearchConfig, verbose: bool, notify: Callable[[str], None], watchdog: ClusterWatchdog
) -> Session:
    import ray

    from search.execution.cluster.autoscaling import find_autoscaling_limits, has_named_node_types
    from search.execution.cluster.nodes import alive_nodes
    from search.execution.engines.engine_pool import EnginePool

    joined = bool(config.address)
    living = len(alive_nodes(ray.nodes()))
    address = ray.get_runtime_context().gcs_address
    limits = find_autoscaling_limits(lambda: has_named_node_types(address), living) if joined else None
    spec = SessionSpec(
        name=uuid.uuid4().hex[:12],
        verbose=verbose,
        resources=FixedTrialResources(config.cpus_per_trial, config.gpus_per_trial, config.max_concurrent),
        reuse=config.reuse_settings,
        precision=config.precision,
        jit=config.jit,
        joined=joined,
    )
    pool = EnginePool(spec, limits, notify)
    pool.refresh()  # engines start now, and import TensorFlow while the data is prepared
    pool.require_fitting_node()
    return Session(spec, pool, watchdog)


@contextmanager
def _polling_nodes(pool: EnginePool) -> Iterator[None]:
    """Keep the pool up to date inside the block."""
    over = threading.Event()

    def poll() -> None:
        while not over.wait(NODE_POLL_SECONDS):
            try:
                pool.refresh()
            except Exception:  # the next attempt may succeed, and the watchdog notices a lost cluster
                logger.debug("refreshing the engine pool failed", exc_info=True)

    thread = threading.Thread(target=poll, name="unfreeze-nodes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        # If the cluster is lost, a refresh may hang in a call of Ray. The thread is a daemon, so it may be
        # left behind.
        thread.join(timeout=NODE_POLL_SECONDS)


def _endpoints() -> dict[str, tuple[str, int]]:
    """Return what a search cannot do without: the cluster's head, and Ray on this machine."""
    import ray

    from search.execution.cluster.nodes import alive_nodes

    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    # IPv6 addresses have brackets around the host, which sockets do not accept.
    endpoints = {"the head of the Ray cluster": (host.strip("[]"), int(port))}
    here = alive_nodes(ray.nodes()).get(context.get_node_id())
    return endpoints | ({"Ray on this machine": (here.host, here.port)} if here else {})
