"""Checks disks, tracking server and nodes in the background while a search starts; only problems are reported."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from search.config.search_config import SearchConfig
from search.doctor.storage import nearest_existing
from search.doctor.tracking import ask_server, is_server
from search.records.finding import Finding, warning
from trainables.activations.location import default_directory
from trainables.errors import ClusterError

LOW_DISK_BYTES = 256 * 2**20
"""With fewer free bytes on a disk, even a small search may fail."""

logger = logging.getLogger(__name__)


class StartupChecks:
    """The quick part of the doctor, in threads, so that the start of a search does not wait for it.

    Args:
        config: of the search.
        storage: folder of the searches; it exists.
        notify: receives a line for each problem.
    """

    def __init__(self, config: SearchConfig, storage: Path, notify: Callable[[str], None]) -> None:
        self._config, self._storage, self._notify = config, storage, notify
        self._fatal: str | None = None

    def start_local_checks(self) -> threading.Thread:
        """Check the disks and the tracking server."""
        return self._start(lambda: check_disks_and_tracking(self._config, self._storage))

    def start_node_checks(self) -> threading.Thread | None:
        """Check the nodes of the joined cluster, if there is one."""
        if self._config.address is None:
            return None
        return self._start(lambda: check_search_nodes(self._config, self._storage))

    def raise_if_fatal(self) -> None:
        """Stop the search if a finished check has shown that trials would fail.

        Raises:
            ClusterError: nodes on which trials would run do not share the storage.
        """
        if self._fatal:
            raise ClusterError(f"storage: {self._fatal}")

    def _start(self, check: Callable[[], Iterable[Finding]]) -> threading.Thread:
        def run_check() -> None:
            try:
                for finding in check():
                    if finding.grade != "ok":
                        self._report(finding)
            except Exception:  # a search does not depend on these checks
                logger.debug("a check at the start of the search failed", exc_info=True)

        # A daemon thread: a network file system that hangs must not keep the process alive.
        thread = threading.Thread(target=run_check, name="unfreeze-doctor", daemon=True)
        thread.start()
        return thread

    def _report(self, finding: Finding) -> None:
        if (finding.check, finding.grade) == ("storage", "failed"):
            self._fatal = finding.words
        self._notify(f"{finding.check}: {finding.words}")


def check_disks_and_tracking(config: SearchConfig, storage: Path) -> Iterator[Finding]:
    """Check for disks that are nearly full and for a tracking server that does not answer or refuses this client."""
    cache = default_directory(wanted=config.cache) if config.reuse_settings.activations else None
    for name, folder in (("storage", storage), ("cache", cache)):
        if folder is not None and (free := shutil.disk_usage(nearest_existing(folder)).free) < LOW_DISK_BYTES:
            yield warning(name, f"{folder} has only {free / 2**20:.0f} MB free")
    if config.tracking_uri and is_server(config.tracking_uri):
        found = ask_server(config.tracking_uri.rstrip("/"))
        yield Finding(
            found.check, found.grade, f"{found.words}. The search goes on; its runs are kept until it answers"
        )


def check_search_nodes(config: SearchConfig, storage: Path) -> Iterator[Finding]:
    """Check that the nodes on which trials may run share the storage and have this machine's versions."""
    from search.doctor.demand import fits
    from search.doctor.node_checks import check_shared, check_versions
    from search.doctor.probed_nodes import ProbedNodes

    wanted = {"CPU": config.cpus_per_trial, "GPU": config.gpus_per_trial}
    nodes = ProbedNodes.alive(lambda has: fits(wanted, has))
    try:
        yield from check_shared(nodes, storage)
        yield check_versions(nodes)
    finally:
        nodes.close()
