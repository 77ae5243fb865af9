"""Progress on a terminal: a panel that redraws itself in place."""

from __future__ import annotations

import logging
import threading
import time

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from search.execution.engines.node_usage import NodeUse
from search.live_panel import Shown, Stage, panel
from search.records.record import SearchRecord

FRAMES_PER_SECOND = 2.0
logger = logging.getLogger(__name__)


class LiveView:
    """Draws twice a second from what it was last told, whatever the pace of the calls.

    The panel takes as many lines as the terminal has and vanishes when the search is over; events stay above.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._record: SearchRecord | None = None
        self._before: SearchRecord | None = None
        self._stage: Stage | None = None
        self._began = self._told = time.monotonic()
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._over = False
        self._nodes: tuple[NodeUse, ...] = ()

    def event(self, message: str) -> None:
        """A line above the panel."""
        self._start()
        self._console.print(Text(message, style="dim"))

    def stage(self, name: str, done: int, total: int) -> None:
        """Shown until it is done or another begins; without a total, until there is any other news."""
        with self._lock:
            self._stage = None if total and done >= total else Stage(name, done, total)
        self._start()

    def update(self, record: SearchRecord) -> None:
        """Keep ``record`` for the next frame."""
        with self._lock:
            if self._record is not None and self._record.name != record.name:
                self._before = self._record
            if self._stage is not None and not self._stage.total:
                self._stage = None
            self._record, self._told = record, time.monotonic()
        self._start()

    def nodes(self, nodes: tuple[NodeUse, ...]) -> None:
        """Keep ``nodes`` for the next frame."""
        with self._lock:
            self._nodes = nodes

    def close(self) -> None:
        """Take the panel away and give the terminal back."""
        with self._lock:
            self._over, live, self._live = True, self._live, None
        if live is not None:
            live.stop()

    def draw(self) -> RenderableType:
        """The panel as it is now."""
        now = time.monotonic()
        with self._lock:
            clocks = now - self._began, now - self._told
            shown = Shown(self._record, self._before, self._stage, *clocks, self._nodes)
        try:
            return panel(shown, self._console)
        except Exception:  # in the thread that draws, where no caller could take it
            logger.exception("the progress panel failed and is off; the search goes on")
            self._over = True
            return Text("")

    def _start(self) -> None:
        with self._lock:
            if self._live is not None or self._over:
                return
            self._live = live = Live(
                console=self._console,
                get_renderable=self.draw,
                refresh_per_second=FRAMES_PER_SECOND,
                transient=True,
            )
        live.start(refresh=True)
