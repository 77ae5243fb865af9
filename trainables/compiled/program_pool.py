"""Compiled programs that wait for the next trial of their shape."""

from __future__ import annotations

import gc
import threading

from trainables.compiled.program import Program
from trainables.compiled.shapes import ProgramShape

MAX_IDLE_PROGRAMS = 64
MAX_IDLE_BYTES = 2 * 2**30
"""Idle programs that are kept, and the bytes that they may take."""

COLLECT_AFTER_BYTES = 256 * 2**20
"""Bytes of dropped programs from which on they are collected at once.

Their graphs are cycles, and Python's collector does not know how much hangs on them.
"""


class ProgramPool:
    """Programs of at most ``most_bytes`` together; those that are idle for longest go first, the newest one never.

    Safe to use from several threads.

    Args:
        most: programs; 0 to keep none.
        most_bytes: of weights, optimizers and graphs.
    """

    def __init__(self, most: int = MAX_IDLE_PROGRAMS, most_bytes: int = MAX_IDLE_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._kept: list[Program] = []
        self._garbage = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """What the kept ones take, about."""
        return sum(program.bytes for program in list(self._kept))

    def acquire(self, shape: ProgramShape) -> Program | None:
        """A program of ``shape``, which is idle no longer; None if there is none."""
        with self._lock:
            for index in reversed(range(len(self._kept))):
                if self._kept[index].shape == shape:
                    return self._kept.pop(index)
        return None

    def release(self, program: Program) -> None:
        """Keep ``program``, and drop others where that is too much."""
        with self._lock:
            self._kept.append(program)
            while len(self._kept) > self._most or (len(self._kept) > 1 and self.bytes > self._most_bytes):
                self._garbage += self._kept.pop(0).bytes
            full = self._garbage > COLLECT_AFTER_BYTES
            if full:
                self._garbage = 0
        del program
        if full:
            gc.collect()
