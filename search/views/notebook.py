"""Progress in a notebook: one output below the cell that is drawn anew in place."""

from __future__ import annotations

import sys
import threading
import time
from html import escape
from typing import Any

from search.execution.engines.node_usage import NodeUsage
from search.records.record import SearchRecord
from search.views.notebook_html import progress_html

MIN_REDRAW_SECONDS = 0.5
"""Between two drawings: each is a message to the browser, and goes into a saved notebook's history of outputs."""


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel. IPython on a terminal is none, and is not imported to find out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookView:
    """Draws at most twice a second from what it was last told, and at the end. What it shows last stays.

    The baseline takes the place of the search while it runs; :meth:`close` draws the search itself again.
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
        """The line below the bar, until the next."""
        with self._lock:
            self._message = message
            self._draw()

    def stage(self, name: str, done: int, total: int) -> None:
        """Shown until it is done or the trials have news."""
        with self._lock:
            counted = f"{name}: {done:,} of {total:,}" if total else f"{name} …"
            self._stage = "" if total and done >= total else counted
            self._draw()

    def update(self, record: SearchRecord) -> None:
        """Keep ``record`` for the next drawing."""
        with self._lock:
            if self._first is None or self._first.name == record.name:
                self._first = record
            self._record, self._stage = record, ""
            self._draw()

    def nodes(self, nodes: tuple[NodeUsage, ...]) -> None:
        """Nothing: a notebook has little room."""

    def close(self) -> None:
        """Draw the search as it ended."""
        with self._lock:
            self._record, self._stage, self._message = self._first, "", ""
            self._draw(now=True)

    def html(self) -> str:
        """What is to be shown now."""
        if self._record is not None:
            return progress_html(self._record, self._stage, self._message)
        lines = [line for line in (self._stage, self._message) if line]
        return "".join(f"<div>{escape(line)}</div>" for line in lines)

    def _draw(self, now: bool = False) -> None:
        if not now and time.monotonic() - self._drawn < MIN_REDRAW_SECONDS:
            return
        from IPython.display import HTML, display

        html = self.html()
        if html == self._shown:
            return
        if self._handle is None:
            self._handle = display(HTML(html), display_id=True)
        else:
            self._handle.update(HTML(html))
        self._drawn, self._shown = time.monotonic(), html
