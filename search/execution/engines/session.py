"""The Ray side of one run: connecting, and engines on every node for as long as it lasts."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.config.search_config import SearchConfig
from search.execution.engines.cluster_watchdog import ClusterWatchdog
from trainables.errors import ClusterError
from trainables.reuse import Reuse

if TYPE_CHECKING:
    from search.execution.engines.fleet import EnginePool

RAY_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_LOGGER_LEVEL": "ERROR",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # the searcher knows how many may wait
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


NODE_POLL_SECONDS = 3.0
"""Between two looks at which nodes there are."""


@dataclass(frozen=True)
class Session:
    """A connection to Ray with engines that outlive single trials.

    ``share`` is what trials ask for, the fields of
    :class:`search.execution.engines.nodes.FixedTrialResources`; ``joined``
    is whether the cluster
    was there before, so that its nodes may be other machines.
    """

    name: str
    verbose: bool
    fleet: EnginePool
    reuse: Reuse = field(default_factory=Reuse)
    numerics: Mapping[str, str] = field(default_factory=dict)
    share: tuple[float, float, int | None] = (1.0, 0.0, None)
    joined: bool = False
    watch: ClusterWatchdog = field(default_factory=lambda: ClusterWatchdog({}))

    @property
    def capacity(self) -> int:
        """How many trials may be under way at this moment; nodes come and go."""
        return self.fleet.capacity

    @property
    def engines(self) -> Sequence[Any]:
        """Those of the nodes that are there at this moment; there may be none."""
        return self.fleet.engines

    def describe(self) -> dict[str, Any]:
        """What a trial actor needs to find its engine."""
        return {
            "name": self.name,
            "verbose": self.verbose,
            "reuse": asdict(self.reuse),
            "numerics": dict(self.numerics),
            "share": self.share,
            "joined": self.joined,
        }

    def refuse_lost(self) -> None:
        """Go no further without a cluster.

        Raises:
            ClusterError: its head, or Ray on this machine, is gone.
        """
        if self.watch.lost:
            raise ClusterError(self.watch.lost)


@contextmanager
def connect(
    config: SearchConfig,
    verbose: bool = False,
    notify: Callable[[str], None] = lambda message: None,
    on_cluster_lost: Callable[[], None] = lambda: None,
) -> Iterator[Session]:
    """Join the cluster at ``config.address`` or start Ray on this machine; engines start at once.

    Args:
        notify: receives a line for each node that joins or leaves.
        on_cluster_lost: called before this process ends itself because the cluster is lost and a call of Ray hangs.

    Raises:
        ClusterError: no cluster there, or no node can run a trial.
    """
    for key, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import ray

    mine = not ray.is_initialized()
    with _quiet_ray(verbose), tempfile.TemporaryDirectory(prefix="unfreeze-") as empty:
        if mine:
            _init(config, verbose, Path(empty))
        watch = ClusterWatchdog(_endpoints(), ended=on_cluster_lost)
        with watch.watching():
            try:
                session = _session(config, verbose, notify, watch)
                with _polling_nodes(session.fleet):
                    yield session
            finally:
                # By this thread, when nothing else is done: Ray ends a process that drops one of its references
                # while another thread shuts it down.
                if mine and not watch.lost:  # without its cluster Ray would wait for it
                    ray.shutdown()


def _init(config: SearchConfig, verbose: bool, empty: Path) -> None:
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
        from search.execution.engines.head_check import readable_connection_error

        where = config.address or "this machine"
        words = readable_connection_error(error)
        raise ClusterError(f"address: expected a running Ray cluster, received {where!r}: {words}") from error


def _is_start_timeout(error: Exception) -> bool:
    """What Ray raises where its own processes did not start in time: of no type that tells it from others."""
    return type(error) is Exception and "timed out" in str(error)


def _require_head(address: str) -> None:
    """Say within seconds what keeps this machine out, which Ray says late or not at all."""
    from search.execution.engines.head_check import check_head

    found = check_head(address)
    if found.grade == "failed":
        raise ClusterError(f"address: expected a running Ray cluster, received {address!r}: {found.words}")


def quoted_python() -> dict[str, Any]:
    """Ray hands the interpreter's path to a shell as it is; one with a space in it must come quoted."""
    quoted = shlex.quote(sys.executable)
    return {"runtime_env": {"py_executable": quoted}} if quoted != sys.executable else {}


@contextmanager
def _in_empty_folder(empty: Path) -> Iterator[None]:
    """Connect from an empty folder, which lives as long as the connection.

    Ray puts the driver's working directory first on every worker's import path, and starts workers there; a
    file called ``search.py`` would shadow this package.
    """
    before = Path.cwd()
    os.chdir(empty)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _quiet_ray(verbose: bool) -> Iterator[None]:
    """Keep Ray's words off the screen: how a trial ended is in the ledger, and which node was lost we say ourselves."""
    logger = logging.getLogger("ray.tune")
    before = logger.level
    if not verbose:
        logger.setLevel(logging.CRITICAL)
        _drop_error_messages()
    try:
        yield
    finally:
        logger.setLevel(before)


def _drop_error_messages() -> None:
    """Of its clusters' errors Ray tells every driver on standard output, whatever ``log_to_driver`` says."""
    with suppress(ImportError, AttributeError):  # no public switch
        from ray._private.ray_logging import stdout_deduplicator

        stdout_deduplicator.skip_re = re.compile("")


def _session(
    config: SearchConfig, verbose: bool, told: Callable[[str], None], watch: ClusterWatchdog
) -> Session:
    import ray

    from search.execution.engines.autoscaling import find_autoscaling_limits, has_named_node_types
    from search.execution.engines.fleet import EnginePool
    from search.execution.engines.nodes import alive_nodes

    joined = bool(config.address)
    there = len(alive_nodes(ray.nodes()))
    address = ray.get_runtime_context().gcs_address
    growth = find_autoscaling_limits(lambda: has_named_node_types(address), there) if joined else None
    session = Session(
        name=uuid.uuid4().hex[:12],
        verbose=verbose,
        fleet=(fleet := EnginePool({}, config, growth, told)),
        reuse=config.reuse_settings,
        numerics={"precision": config.precision, "jit": config.jit},
        share=(config.cpus_per_trial, config.gpus_per_trial, config.max_concurrent),
        joined=joined,
        watch=watch,
    )
    fleet.session = session.describe()
    fleet.look()
    fleet.refuse_misfit()
    return session


@contextmanager
def _polling_nodes(fleet: EnginePool) -> Iterator[None]:
    """Keep the fleet as the cluster is."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(NODE_POLL_SECONDS):
            try:
                fleet.look()
            except Exception:  # the next look may succeed; a lost cluster is the watch's business
                logging.getLogger(__name__).debug("looking at the nodes failed", exc_info=True)

    thread = threading.Thread(target=look, name="unfreeze-nodes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=NODE_POLL_SECONDS)


def _endpoints() -> dict[str, tuple[str, int]]:
    """What a search can't do without: the cluster's head, and Ray on this machine."""
    import ray

    from search.execution.engines.nodes import alive_nodes

    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    doors = {"the head of the Ray cluster": (host.strip("[]"), int(port))}
    here = alive_nodes(ray.nodes()).get(context.get_node_id())
    return doors | ({"Ray on this machine": (here.host, here.port)} if here else {})
