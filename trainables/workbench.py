"""What the trials of one process share: backbone, data, activations and compiled programs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from trainables.activations import Activations
from trainables.backbones import Backbone
from trainables.datasets import Task, open_task
from trainables.program import Program, Shape

KEPT_PROGRAMS = 64
"""Idle programs that are kept for the next trial of their shape."""


@dataclass
class Workbench:
    """Holds everything that a second trial need not pay for again.

    A program belongs to one trial at a time; two trials of one shape that run at once get one each.
    """

    backbone: Backbone
    task: Task
    activations: Activations
    compiled: int = 0
    _idle: OrderedDict[Shape, list[Program]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _building: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, backbone: Path, task: Path) -> Workbench:
        """Open a saved backbone and a prepared task."""
        opened, data = Backbone.open(backbone), open_task(task)
        return cls(opened, data, Activations(opened, data))

    def take(self, shape: Shape) -> tuple[Program, float]:
        """A program of ``shape``, compiled, and the seconds that compiling took (0 when one was idle)."""
        with self._lock:
            idle = self._idle.get(shape)
            if idle:
                self._idle.move_to_end(shape)
                return idle.pop(), 0.0
        with self._building:  # Keras' naming state is global: one graph is built at a time
            program = Program(self.backbone, shape)
            seconds = program.compile()
        self.compiled += 1
        return program, seconds

    def give_back(self, program: Program) -> None:
        """Keep ``program`` for the next trial of its shape; the longest idle ones are dropped."""
        with self._lock:
            self._idle.setdefault(program.shape, []).append(program)
            self._idle.move_to_end(program.shape)
            while sum(map(len, self._idle.values())) > KEPT_PROGRAMS:
                oldest = next(iter(self._idle))
                self._idle[oldest].pop()
                if not self._idle[oldest]:
                    del self._idle[oldest]
