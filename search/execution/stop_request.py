"""Collects the reasons to stop a search early: a time limit, a signal, or another process that took it over."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType


@dataclass
class StopRequest:
    """Whether, and why, the search has to stop.

    Attributes:
        deadline: moment of :func:`time.monotonic` after which no trial runs; None for no limit.
        signalled: set when the user asked the search to end.
        notify: receives a line for the user.
        taken_over: set when another process has taken over the search.
    """

    deadline: float | None = None
    signalled: threading.Event = field(default_factory=threading.Event)
    notify: Callable[[str], None] = lambda message: None
    taken_over: threading.Event = field(default_factory=threading.Event)

    @property
    def reason(self) -> str | None:
        """``taken_over``, ``interrupted``, ``time_budget`` or None."""
        if self.immediate:
            return "taken_over" if self.taken_over.is_set() else "interrupted"
        return "time_budget" if self.deadline is not None and time.monotonic() >= self.deadline else None

    @property
    def immediate(self) -> bool:
        """Whether everything has to end; a deadline ends the trials only."""
        return self.signalled.is_set() or self.taken_over.is_set()

    def with_deadline(self, seconds: float | None) -> StopRequest:
        """Return a request with a deadline of its own that shares the signals with this one."""
        deadline = time.monotonic() + seconds if seconds else None
        return StopRequest(deadline, self.signalled, self.notify, self.taken_over)

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Inside the block, the first SIGINT or SIGTERM asks the search to stop. A second one has its previous effect.

        Only the main thread can handle signals: in another thread the block changes nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

        def handle(number: int, frame: FrameType | None) -> None:
            self.signalled.set()
            # A second signal has to end a search that hangs while it stops in order.
            for known, handler in before.items():
                signal.signal(known, handler)
            # The signal may interrupt this very thread while it holds the lock of the view. Writing to the view from
            # here would wait for that lock forever, so another thread writes.
            message = ("stopping the search and saving its state; press Ctrl-C again to stop at once",)
            threading.Thread(target=self.notify, args=message, daemon=True).start()

        for known in before:
            signal.signal(known, handle)
        try:
            yield
        finally:
            for known, handler in before.items():
                signal.signal(known, handler)
