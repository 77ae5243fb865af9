"""A view whose events are kept in the storage as well: what the driver said, for whoever asks later."""

from __future__ import annotations

import contextlib
from pathlib import Path

from search.execution.engines.node_usage import NodeUsage
from search.records.event_log import DRIVER_LOG, format_line
from search.records.record import SearchRecord
from search.views.view import View


class LoggedView:
    """Passes all on to ``view``; events are written to ``driver.log`` in ``folder``, too, if that can be written."""

    def __init__(self, view: View, folder: Path) -> None:
        self._view, self._folder = view, folder

    def event(self, message: str) -> None:
        """Pass it on, and write it down."""
        self._view.event(message)
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / DRIVER_LOG).open("a", encoding="utf-8", errors="replace") as file:
                file.write(format_line("", message))

    def stage(self, name: str, done: int, total: int) -> None:
        """Pass it on."""
        self._view.stage(name, done, total)

    def update(self, record: SearchRecord) -> None:
        """Pass it on."""
        self._view.update(record)

    def nodes(self, nodes: tuple[NodeUsage, ...]) -> None:
        """Pass it on."""
        self._view.nodes(nodes)

    def close(self) -> None:
        """Pass it on."""
        self._view.close()
