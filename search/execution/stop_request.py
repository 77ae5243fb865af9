"""Stop request."""

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
    """Why everything should stop now: a deadline passed or a person said so."""

    deadline: float | None = None
    signalled: threading.Event = field(default_factory=threading.Event)
    told: Callable[[str], None] = lambda words: None
    lost: threading.Event = field(default_factory=threading.Event)
    """Set when another process has taken over the search."""

    @property
    def reason(self) -> str | None:
        """``taken_over``, ``interrupted``, ``time_budget`` or None."""
        if self.at_once:
            return "taken_over" if self.lost.is_set() else "interrupted"
        return "time_budget" if self.deadline is not None and time.monotonic() >= self.deadline else None

    @property
    def at_once(self) -> bool:
        """Whether to end whatever runs, and not only the trials."""
        return self.signalled.is_set() or self.lost.is_set()

    def again(self, seconds: float | None) -> StopRequest:
        """The same wish of a person, with a deadline of its own."""
        deadline = time.monotonic() + seconds if seconds else None
        return StopRequest(deadline, self.signalled, self.told, self.lost)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the first SIGINT or SIGTERM as a wish to end tidily; a second one acts as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

        def handle(number: int, frame: FrameType | None) -> None:
            self.signalled.set()
            for known, handler in before.items():
                signal.signal(known, handler)
            # Not from here: the signal may have come while this very thread was showing something.
            words = ("ending tidily; once more to end at once",)
            threading.Thread(target=self.told, args=words, daemon=True).start()

        for known in before:
            signal.signal(known, handle)
        try:
            yield
        finally:
            for known, handler in before.items():
                signal.signal(known, handler)
