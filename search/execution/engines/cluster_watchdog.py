"""Notices when the cluster itself is gone: its head, or the part of Ray on this machine.

Ray's own way is to end the driver's process after a minute, with a line of its log; until then calls hang. Here the
search ends earlier and says what to do.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from search.execution.engines.nodes import accepts_connections

CHECK_SECONDS = 2.0
"""Between two looks."""

LOST_AFTER_SECONDS = 20.0
"""What has not answered for so long is gone. Ray ends the driver's process after 60 s."""

GRACE_SECONDS = 10.0
"""For the search to end tidily; whoever waits for an answer of Ray's until then will not get one."""


@dataclass
class ClusterWatchdog:
    """Knocks at ``doors``: by name, the host and port of what the search can't do without.

    Attributes:
        lost: what is gone, in words; None while all is well.
    """

    doors: Mapping[str, tuple[str, int]]
    ended: Callable[[], None] = lambda: None
    gone_seconds: float = LOST_AFTER_SECONDS
    grace_seconds: float = GRACE_SECONDS
    lost: str | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch meanwhile. Should the body not end by itself once something is gone, the process is ended."""
        thread = threading.Thread(target=self._watch, name="unfreeze-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()

    def _watch(self) -> None:
        heard = dict.fromkeys(self.doors, time.monotonic())
        while not self._over.wait(CHECK_SECONDS):
            for name, (host, port) in self.doors.items():
                if accepts_connections(host, port):
                    heard[name] = time.monotonic()
                elif time.monotonic() - heard[name] > self.gone_seconds:
                    self.lost = (
                        f"address: {name} at {host}:{port} has not answered for {self.gone_seconds:.0f} s. What was "
                        "done is kept: once the cluster is back, the same command goes on"
                    )
                    self._end()
                    return

    def _end(self) -> None:
        """Wait for the search to end by itself; else end it: there is no other way out of a call of Ray's."""
        if self._over.wait(self.grace_seconds):
            return
        self.ended()
        print("unfreeze:", self.lost, file=sys.stderr, flush=True)
        os._exit(1)
