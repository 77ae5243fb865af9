"""The source of a transfer: another dataset, in the terms of the target's classes.

Classes are shared by name. Source images of a class that the target lacks are left out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainables.activations import Activations
from trainables.errors import UsageError
from trainables.splitfiles import Split
from trainables.tasks import Task


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
    activations: Activations
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


def shared_classes(source: Sequence[str], target: Sequence[str]) -> tuple[str, ...]:
    """The target's classes that the source has too, in the target's order.

    Raises:
        UsageError: there is none.
    """
    shared = tuple(name for name in target if name in set(source))
    if not shared:
        raise UsageError(
            "source: expected a dataset with classes of the target's names, received no class in common: "
            f"{_some(source)} in the source, {_some(target)} in the target"
        )
    return shared


def source_notes(source: Sequence[str], target: Sequence[str]) -> tuple[str, ...]:
    """Sentences on what of the source is used, where the two sets of classes differ.

    Raises:
        UsageError: they have none in common.
    """
    shared = shared_classes(source, target)
    notes = []
    unused = [name for name in source if name not in set(target)]
    if unused:
        notes.append(f"images of {_some(unused)} are left out: the target has no such class")
    absent = [name for name in target if name not in set(source)]
    if absent:
        notes.append(
            f"only {len(shared)} of the target's {len(target)} classes are in it; it says nothing of {_some(absent)}"
        )
    return tuple(notes)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 6:,} more" if len(names) > 6 else ""
    return ", ".join(repr(name) for name in names[:6]) + more
