"""A second dataset next to the target: the source of a transfer, or an old task that shall not be forgotten."""

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
    """A second dataset, whose labels are also given as the target's classes.

    Classes are shared by name. Images of a class that the target lacks have no label there and are not used for
    transfer.

    Attributes:
        task: the second dataset.
        classes: names of the target's classes; of an old task, its own.
        activations: of its images under the target's backbone.
    """

    task: Task
    classes: tuple[str, ...]
    activations: ActivationCache
    _computed: dict[Hashable, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def split(self, name: str) -> Split:
        """Return a split with the dataset's own labels."""
        return self.task.split(name)

    def shared_rows(self, name: str) -> np.ndarray:
        """Return the row numbers (n,) of the images in split ``name`` that belong to a shared class."""
        return np.flatnonzero(self.labels(name) >= 0)

    def labels(self, name: str) -> np.ndarray:
        """Return for each image in split ``name`` the target's class of the same name, or -1: (N,) int32."""
        indices = [self.classes.index(c) if c in self.classes else -1 for c in self.task.classes]
        return np.array(indices, np.int32)[self.split(name).labels]

    def compute_once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return the result of ``compute``, which is called once for all trials of the process that pass ``key``.

        Other calls wait meanwhile, whatever their key. ``compute`` must not call this method: the lock is not
        reentrant.
        """
        with self._lock:
            if key not in self._computed:
                self._computed[key] = compute()
            return self._computed[key]
