"""Writes the events of a view into the storage, where ``unfreeze logs`` finds them."""

from __future__ import annotations

import contextlib
from pathlib import Path

from search.execution.cluster.node_usage import NodeUsage
from search.records.event_log import DRIVER_LOG, format_line
from search.records.record import SearchRecord
from search.views.view import View


class LoggedView:
    """A view that forwards all calls to ``view`` and appends events to ``driver.log`` in ``folder``."""

    def __init__(self, view: View, folder: Path) -> None:
        self._view, self._folder = view, folder

    def event(self, message: str) -> None:
        """Forward the event and write it to the log."""
        self._view.event(message)
        with contextlib.suppress(OSError):  # a full disk must not end the search
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / DRIVER_LOG).open("a", encoding="utf-8", errors="replace") as file:
                file.write(format_line("", message))

    def stage(self, name: str, done: int, total: int) -> None:
        """Forward the call."""
        self._view.stage(name, done, total)

    def update(self, record: SearchRecord) -> None:
        """Forward the call."""
        self._view.update(record)

    def nodes(self, nodes: tuple[NodeUsage, ...]) -> None:
        """Forward the call."""
        self._view.nodes(nodes)

    def close(self) -> None:
        """Forward the call."""
        self._view.close()
