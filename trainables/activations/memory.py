"""Keeps cache entries in the memory of this process; the least recently used ones are evicted first."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np


class MemoryCache:
    """Arrays by name that take at most ``budget`` bytes together. Thread-safe."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Bytes that the arrays take now."""
        with self._lock:
            return self._bytes()

    def __contains__(self, name: str) -> bool:
        # Needs no lock: one look-up is atomic, and the answer may be outdated in any case.
        return name in self._kept

    def get(self, name: str) -> np.ndarray | None:
        """Return the array called ``name``; None if it is not here."""
        with self._lock:
            # The order of the dictionary is the order of use: the least recently used array comes first.
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def put(self, name: str, array: np.ndarray) -> None:
        """Keep ``array`` and evict others if necessary; ignore it if it is larger than the budget."""
        if array.nbytes > self.budget:
            return
        with self._lock:
            self._kept[name] = array
            self._kept.move_to_end(name)
            while self._bytes() > self.budget:
                self._kept.popitem(last=False)

    def _bytes(self) -> int:
        return sum(array.nbytes for array in self._kept.values())
