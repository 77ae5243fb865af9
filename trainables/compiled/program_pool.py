"""Keeps compiled programs for the next trial of their shape."""

from __future__ import annotations

import gc
import threading

from trainables.compiled.program import Program
from trainables.compiled.shapes import ProgramShape

MAX_IDLE_PROGRAMS = 64
MAX_IDLE_BYTES = 2 * 2**30
"""How many idle programs are kept, and how many bytes they may take together."""

COLLECT_AFTER_BYTES = 256 * 2**20
"""Bytes of dropped programs after which Python's garbage collector is called.

Their graphs contain reference cycles, and the collector counts objects: it does not know how much memory TensorFlow
holds for them, and would run far too late.
"""


class ProgramPool:
    """Idle programs. Safe to use from several threads.

    If there are too many, those that have been idle longest are dropped. The newest one is kept whatever its size.

    Args:
        max_programs: largest number of programs; 0 keeps none.
        max_bytes: largest estimated memory of all programs together, for weights, optimizers and graphs.
    """

    def __init__(self, max_programs: int = MAX_IDLE_PROGRAMS, max_bytes: int = MAX_IDLE_BYTES) -> None:
        self._max_programs, self._max_bytes = max_programs, max_bytes
        self._kept: list[Program] = []
        self._garbage = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """Estimated memory of the kept programs."""
        return sum(program.bytes for program in list(self._kept))

    def acquire(self, shape: ProgramShape) -> Program | None:
        """Remove and return a program of ``shape``, the newest; None if there is none."""
        with self._lock:
            for index in reversed(range(len(self._kept))):
                if self._kept[index].shape == shape:
                    return self._kept.pop(index)
        return None

    def release(self, program: Program) -> None:
        """Keep ``program``, and drop others if there are too many."""
        with self._lock:
            self._kept.append(program)
            while len(self._kept) > self._max_programs or (
                len(self._kept) > 1 and self.bytes > self._max_bytes
            ):
                self._garbage += self._kept.pop(0).bytes
            full = self._garbage > COLLECT_AFTER_BYTES
            if full:
                self._garbage = 0
        del program  # this reference would keep a program alive that was dropped just now
        if full:
            # The collector runs outside the lock, so that other trials do not have to wait for it.
            gc.collect()
