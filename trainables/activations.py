"""Activations at a cut: what the frozen prefix makes of every image of a split, computed once per process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from trainables.backbones import Backbone
from trainables.datasets import Task

CHUNK = 256
"""Images that go through a prefix at once."""


class Activations:
    """Activations of a task's splits under one backbone, in memory up to ``budget`` bytes.

    The least recently used array is given up first. Safe to use from several threads.
    """

    def __init__(self, backbone: Backbone, task: Task, budget: int = 2 * 2**30) -> None:
        self._backbone = backbone
        self._task = task
        self._budget = budget
        self._kept: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    def fits(self, split: str, depth: int) -> bool:
        """Whether the whole split's activations at ``depth`` fit into the budget."""
        shape = self._backbone.parts(depth)[0].output.shape[1:]
        return self._task.counts[split] * int(np.prod(shape)) * 4 <= self._budget

    def get(self, split: str, depth: int) -> np.ndarray:
        """Activations (N, …) float32 of the unaugmented images of ``split`` at the cut of ``depth``."""
        with self._lock:
            kept = self._kept.get((split, depth))
            if kept is not None:
                self._kept.move_to_end((split, depth))
                self.hits += 1
                return kept
            self.misses += 1
            whole = np.concatenate(list(self._compute(split, depth)))
            self._kept[split, depth] = whole
            while sum(a.nbytes for a in self._kept.values()) > self._budget and len(self._kept) > 1:
                self._kept.popitem(last=False)
            return whole

    def chunks(self, split: str, depth: int) -> Iterator[np.ndarray]:
        """The same as :meth:`get`, in order and in pieces, without keeping what does not fit."""
        if not self.fits(split, depth):
            yield from self._compute(split, depth)
            return
        whole = self.get(split, depth)
        for start in range(0, len(whole), CHUNK):
            yield whole[start : start + CHUNK]

    def _compute(self, split: str, depth: int) -> Iterator[np.ndarray]:
        prefix, _ = self._backbone.parts(depth)
        images = self._task.split(split).images
        for start in range(0, len(images), CHUNK):
            pixels = tf.cast(tf.constant(images[start : start + CHUNK]), tf.float32)
            yield prefix(pixels, training=False).numpy()
