"""Notices when the cluster itself is lost: its head, or the part of Ray on this machine.

Ray ends the driver's process after about a minute, with one line in its log, and until then calls of Ray hang. The
watchdog ends the search earlier, with a message that explains what to do.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from search.execution.cluster.nodes import accepts_connections

CHECK_SECONDS = 2.0
"""Pause between two checks."""

LOST_AFTER_SECONDS = 20.0
"""An endpoint that has not accepted a connection for this time is lost. Ray ends the driver's process after 60 s."""

GRACE_SECONDS = 10.0
"""Time that the search has to end tidily. A call of Ray that has not returned by then never will."""


@dataclass
class ClusterWatchdog:
    """Checks that the endpoints accept connections.

    Attributes:
        endpoints: host and port of everything that the search cannot do without, by a name for messages.
        before_exit: called before the watchdog ends the process, to leave the screen in order.
        lost_after_seconds: see :data:`LOST_AFTER_SECONDS`.
        grace_seconds: see :data:`GRACE_SECONDS`.
        lost: a message about what is lost; None while all is well.
    """

    endpoints: Mapping[str, tuple[str, int]]
    before_exit: Callable[[], None] = lambda: None
    lost_after_seconds: float = LOST_AFTER_SECONDS
    grace_seconds: float = GRACE_SECONDS
    lost: str | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch inside the block. If an endpoint is lost and the block does not end by itself, end the process."""
        thread = threading.Thread(target=self._watch, name="unfreeze-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()

    def _watch(self) -> None:
        last_seen = dict.fromkeys(self.endpoints, time.monotonic())
        while not self._over.wait(CHECK_SECONDS):
            for name, (host, port) in self.endpoints.items():
                # A closed port and an unreachable host look alike here, and both may be gone for a moment only.
                if accepts_connections(host, port):
                    last_seen[name] = time.monotonic()
                elif time.monotonic() - last_seen[name] > self.lost_after_seconds:
                    self.lost = (
                        f"address: {name} at {host}:{port} has not answered for {self.lost_after_seconds:.0f} s. All "
                        "results are kept: when the cluster is back, run the same command again to resume"
                    )
                    # The driver reads ``lost`` in its loops and ends the search by itself; the process is
                    # only killed if that fails.
                    self._end()
                    return

    def _end(self) -> None:
        """Wait until the search ends by itself. If it does not, a call of Ray hangs, and only the end of the process
        ends that call.
        """
        if self._over.wait(self.grace_seconds):
            return
        self.before_exit()
        # sys.exit would only end this thread, and a normal exit would wait for the thread that hangs in Ray.
        print("unfreeze:", self.lost, file=sys.stderr, flush=True)
        os._exit(1)
