"""Shows progress in a notebook: one output below the cell, redrawn in place."""

from __future__ import annotations

import sys
import threading
import time
from html import escape
from typing import Any

from search.execution.cluster.node_usage import NodeUsage
from search.records.record import SearchRecord
from search.views.notebook_html import progress_html

MIN_REDRAW_SECONDS = 0.5
"""Time between two drawings. Each is a message to the browser and stays in the history of a saved notebook."""


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook. IPython on a terminal is not one."""
    ipython = sys.modules.get("IPython")  # not imported: a notebook has done that
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookView:
    """A view that draws at most twice a second, and once more at the end; the last drawing stays.

    While a baseline runs it is shown in place of the search. :meth:`close` draws the search again.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._record: SearchRecord | None = None
        self._first: SearchRecord | None = None
        self._stage = self._message = ""
        self._drawn = 0.0
        self._handle: Any = None
        self._shown = ""

    def event(self, message: str) -> None:
        """Show the line below the bar until the next event."""
        with self._lock:
            self._message = message
            self._draw()

    def stage(self, name: str, done: int, total: int) -> None:
        """Show the stage until it is done or the search is updated."""
        with self._lock:
            counted = f"{name}: {done:,} of {total:,}" if total else f"{name} …"
            self._stage = "" if total and done >= total else counted
            self._draw()

    def update(self, record: SearchRecord) -> None:
        """Show ``record`` in the next drawing."""
        with self._lock:
            if self._first is None or self._first.name == record.name:
                self._first = record
            self._record, self._stage = record, ""
            self._draw()

    def nodes(self, nodes: tuple[NodeUsage, ...]) -> None:
        """Ignored, because a notebook has little room."""

    def close(self) -> None:
        """Draw the search in its final state."""
        with self._lock:
            self._record, self._stage, self._message = self._first, "", ""
            self._draw(now=True)

    def html(self) -> str:
        """Return the HTML to show at this moment."""
        if self._record is not None:
            return progress_html(self._record, self._stage, self._message)
        lines = [line for line in (self._stage, self._message) if line]
        return "".join(f"<div>{escape(line)}</div>" for line in lines)

    def _draw(self, now: bool = False) -> None:
        if not now and time.monotonic() - self._drawn < MIN_REDRAW_SECONDS:
            return
        from IPython.display import HTML, display

        html = self.html()
        if html == self._shown:  # an equal output would grow a saved notebook
            return
        if self._handle is None:
            self._handle = display(HTML(html), display_id=True)
        else:
            self._handle.update(HTML(html))
        self._drawn, self._shown = time.monotonic(), html
