"""The Ray side of one run: connecting, and one engine on every node."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from search.config import SearchConfig
from trainables.errors import ClusterError
from trainables.reuse import Reuse

QUIET = {
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
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@dataclass(frozen=True)
class Session:
    """A connection to Ray with engines that outlive single trials.

    ``capacity`` is how many trials fit on the cluster at once.
    """

    name: str
    threads: int
    verbose: bool
    capacity: int
    engines: tuple[Any, ...]
    reuse: Reuse = field(default_factory=Reuse)
    numerics: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """What a trial actor needs to find its engine."""
        return {
            "name": self.name,
            "threads": self.threads,
            "verbose": self.verbose,
            "reuse": asdict(self.reuse),
            "numerics": dict(self.numerics),
        }


@contextmanager
def connect(config: SearchConfig, verbose: bool = False) -> Iterator[Session]:
    """Join the cluster at ``config.address`` or start Ray on this machine; engines start at once.

    Raises:
        ClusterError: no cluster there, or no node can run a trial.
    """
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    import ray

    mine = not ray.is_initialized()
    with _quiet_tune(verbose), tempfile.TemporaryDirectory(prefix="unfreeze-") as empty:
        if mine:
            _init(config, verbose, Path(empty))
        try:
            yield _session(config, verbose)
        finally:
            if mine:
                ray.shutdown()


def _init(config: SearchConfig, verbose: bool, empty: Path) -> None:
    import ray

    options: dict[str, Any] = {
        "log_to_driver": verbose,
        "logging_level": logging.INFO if verbose else logging.ERROR,
        "configure_logging": True,
    }
    if config.address:
        options["address"] = config.address
    else:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": os.cpu_count() or 1,
            **quoted_python(),
        }
    try:
        with _away_from_home(empty):
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = config.address or "this machine"
        raise ClusterError(f"address: expected a running Ray cluster, received {where!r}: {error}") from error


def quoted_python() -> dict[str, Any]:
    """Ray hands the interpreter's path to a shell as it is; one with a space in it must come quoted."""
    quoted = shlex.quote(sys.executable)
    return {"runtime_env": {"py_executable": quoted}} if quoted != sys.executable else {}


@contextmanager
def _away_from_home(empty: Path) -> Iterator[None]:
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
def _quiet_tune(verbose: bool) -> Iterator[None]:
    """Keep Ray Tune's log off the screen; how a trial ended is in the ledger."""
    logger = logging.getLogger("ray.tune")
    before = logger.level
    if not verbose:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _session(config: SearchConfig, verbose: bool) -> Session:
    import ray

    from search.trial import engine_on

    nodes = [n for n in ray.nodes() if n["Alive"] and _trials_on(n["Resources"], config)]
    if not nodes:
        raise ClusterError(
            f"cpus_per_trial, gpus_per_trial: expected a node with {config.cpus_per_trial:g} CPUs and "
            f"{config.gpus_per_trial:g} GPUs free for a trial, received nodes with "
            + ("; ".join(_words(n["Resources"]) for n in ray.nodes() if n["Alive"]) or "nothing")
        )
    name = uuid.uuid4().hex[:12]
    threads = min(threads_of(n["Resources"], config) for n in nodes)
    reuse, numerics = config.reused, {"precision": config.precision, "jit": config.jit}
    engines = tuple(engine_on(n["NodeID"], name, threads, verbose, reuse, numerics) for n in nodes)
    capacity = sum(_trials_on(n["Resources"], config) for n in nodes)
    return Session(name, threads, verbose, capacity, engines, reuse, numerics)


def _trials_on(resources: dict[str, float], config: SearchConfig) -> int:
    fits = resources.get("CPU", 0) / config.cpus_per_trial
    if config.gpus_per_trial:
        fits = min(fits, resources.get("GPU", 0) / config.gpus_per_trial)
    return int(fits + 1e-9)


def threads_of(resources: dict[str, float], config: SearchConfig) -> int:
    """Threads that one trial's operations may spread over: its share of the node's cores.

    More would wait for each other where trials fill the node: a step of a MobileNetV2 at 32 pixels takes 11 ms with two
    threads, 4.4 with one.
    """
    at_once = min(_trials_on(resources, config), config.max_concurrent or sys.maxsize)
    return max(1, int(resources.get("CPU", 1) / max(1, at_once)))


def _words(resources: dict[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
