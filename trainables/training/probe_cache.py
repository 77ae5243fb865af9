"""Trained probes of this process, each trained once, by the first trial that asks; the others wait for it."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable

from trainables.cost_account import Account
from trainables.linear_probe_file import Shapes
from trainables.linear_probe_folder import LinearProbeFolder, Weights

MEMORY = 256 * 2**20
"""Bytes of probes in memory; those that were not asked for longest go first."""


class LinearProbeStore:
    """Weights by key, in memory and in ``folder``, if there is one. Safe to use from several threads.

    Args:
        folder: that this machine's processes share; None for none.
        budget: bytes in memory.

    Attributes:
        trained: how many were trained here.
    """

    def __init__(self, folder: LinearProbeFolder | None = None, budget: int = MEMORY) -> None:
        self.folder = folder
        self.budget = budget
        self.trained = 0
        self._kept: OrderedDict[str, Weights] = OrderedDict()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def get(self, key: str, shapes: Shapes, train: Callable[[], Weights], account: Account) -> Weights:
        """The weights of ``key``, float32 arrays of ``shapes``, which nobody may change.

        ``train`` is called at most once, where they are nowhere; what it raises is raised. ``account``, of the trial
        that asks, is told how long it waited for others.
        """

        def counted() -> Weights:
            weights = train()
            with self._lock:
                self.trained += 1
            return weights

        with self._lock:
            alone = self._locks[key]
        with account.timing("wait"):
            alone.acquire()
        try:
            found = self._remembered(key)
            if found is None:
                found = self.folder.get(key, shapes, counted, account) if self.folder else counted()
                self._remember(key, found)
            return found
        finally:
            alone.release()

    def _remembered(self, key: str) -> Weights | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _remember(self, key: str, weights: Weights) -> None:
        with self._lock:
            self._kept[key] = weights
            while sum(w.nbytes for kept in self._kept.values() for w in kept) > self.budget:
                self._kept.popitem(last=False)
