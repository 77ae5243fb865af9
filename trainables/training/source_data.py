"""The source of a transfer: another dataset, in the terms of the target's classes.

Classes are shared by name. Source images of a class that the target lacks are left out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainables.activations.activations import ActivationCache
from trainables.data.split_file import Split
from trainables.data.task import Task


@dataclass
class SourceData:
    """A source task beside a target of ``classes``.

    Attributes:
        task: the source.
        classes: of the target.
        activations: of the source's images, under the target's backbone.
    """

    task: Task
    classes: tuple[str, ...]
    activations: ActivationCache
    _known: dict[Hashable, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def split(self, name: str) -> Split:
        """A split of the source, with labels of its own."""
        return self.task.split(name)

    def rows(self, name: str) -> np.ndarray:
        """Which images (N,) of a split belong to a shared class."""
        return np.flatnonzero(self.labels(name) >= 0)

    def labels(self, name: str) -> np.ndarray:
        """(N,) int32 of all images of a split: the target's class of the same name, or -1."""
        indices = [self.classes.index(c) if c in self.classes else -1 for c in self.task.classes]
        return np.array(indices, np.int32)[self.split(name).labels]

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make`` returns, made once for all trials of the process that ask for ``key``; others wait."""
        with self._lock:
            if key not in self._known:
                self._known[key] = make()
            return self._known[key]
