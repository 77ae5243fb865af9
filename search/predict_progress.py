"""How far a prediction of many images has come: a bar on a terminal, lines now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TypeVar

from search.records.units import format_duration

LINE_EVERY = 10.0
"""Seconds between two lines."""

BAR_EVERY = 0.1
"""Seconds between two changes of the bar."""

Item = TypeVar("Item")
Show = Callable[[int], float]
"""Shows how many are done; returns the seconds until it wants to be called again."""


class Progress:
    """Counts items that go by, and says so on ``stream``; ``total`` 0 where it is not known."""

    def __init__(self, stream: IO[str], total: int) -> None:
        self._stream, self._total = stream, total
        self._began = time.monotonic()
        self.done = 0

    @property
    def seconds(self) -> float:
        """Since the first item was asked for."""
        return time.monotonic() - self._began

    @property
    def rate(self) -> str:
        """``410 images/s``."""
        return f"{self.done / max(self.seconds, 1e-3):,.0f} images/s"

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """``items``, unchanged."""
        self._began = time.monotonic()
        with self._shown() as show:
            due = 0.0
            for item in items:
                self.done += 1
                yield item
                if (now := time.monotonic()) >= due:
                    due = now + show(self.done)

    @contextmanager
    def _shown(self) -> Iterator[Show]:
        if not self._stream.isatty():
            yield self._line
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        shapes = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
        with Bar(*shapes, console=Console(file=self._stream), transient=True) as bar:
            task = bar.add_task("images", total=self._total or None, rate="")

            def draw(done: int) -> float:
                bar.update(task, completed=done, rate=self.rate)
                return BAR_EVERY

            yield draw

    def _line(self, done: int) -> float:
        if self.seconds >= LINE_EVERY:
            whole = f" of {self._total:,}" if self._total else ""
            left = self.seconds * (self._total - done) / done
            rest = f", {format_duration(left)} left" if self._total > done else ""
            print(f"unfreeze: {done:,}{whole} images, {self.rate}{rest}", file=self._stream, flush=True)
            return LINE_EVERY
        return LINE_EVERY - self.seconds
