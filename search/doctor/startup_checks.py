"""What a search looks at by itself while it starts: nothing waits for it, and it speaks only of what is wrong."""

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
from search.views.view import View
from trainables.activations.location import default_directory
from trainables.errors import ClusterError

LOW_DISK_BYTES = 256 * 2**20
"""Bytes: with less than that on a disk, even a small search gets into trouble."""

logger = logging.getLogger(__name__)


class StartupChecks:
    """The quick part of the doctor, in threads beside the start of a search.

    Args:
        storage: folder of the searches, which is there.
        view: told of each thing that is wrong.
    """

    def __init__(self, config: SearchConfig, storage: Path, view: View) -> None:
        self._config, self._storage, self._view = config, storage, view
        self._fatal: str | None = None

    def check_places(self) -> threading.Thread:
        """Look at the disks and the tracking server."""
        return self._start(lambda: check_disks_and_tracking(self._config, self._storage))

    def check_nodes(self) -> threading.Thread | None:
        """Look at the nodes of the cluster that was joined, if one was."""
        if self._config.address is None:
            return None
        return self._start(lambda: check_search_nodes(self._config, self._storage))

    def raise_if_fatal(self) -> None:
        """Go no further if it is known by now that trials would fail.

        Raises:
            ClusterError: nodes that trials would run on do not share the storage.
        """
        if self._fatal:
            raise ClusterError(f"storage: {self._fatal}")

    def _start(self, check: Callable[[], Iterable[Finding]]) -> threading.Thread:
        def look() -> None:
            try:
                for finding in check():
                    if finding.grade != "ok":
                        self._say(finding)
            except Exception:  # a search does not depend on it
                logger.debug("the quick look failed", exc_info=True)

        thread = threading.Thread(target=look, name="unfreeze-doctor", daemon=True)
        thread.start()
        return thread

    def _say(self, finding: Finding) -> None:
        if (finding.check, finding.grade) == ("storage", "failed"):
            self._fatal = finding.words
        self._view.event(f"{finding.check}: {finding.words}")


def check_disks_and_tracking(config: SearchConfig, storage: Path) -> Iterator[Finding]:
    """Disks that are all but full; a tracking server that does not answer, or not us."""
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
    """Whether the nodes that trials may run on share the storage, and have this machine's versions."""
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
