"""The cache of activations: the output of the frozen prefix for every image of a split, computed once per machine.

Activations are kept as float16 (see :mod:`trainables.activations.stages`), in memory or in files that all processes of
the machine share. A higher cut is computed from the nearest lower cut that is cached. Cached values equal computed ones
bit for bit.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainables.activations.augmentation_views import nearest_level
from trainables.activations.key import EntryKey
from trainables.activations.machine_speed import MachineSpeeds, MeasuredSpeeds
from trainables.activations.memory import MemoryCache
from trainables.activations.prefix import ActivationView, FrozenPrefix
from trainables.activations.reuse_policy import (
    MAX_SHARE,
    CacheCapacity,
    CacheLocation,
    ReuseDecision,
    choose_location,
    decide_reuse,
)
from trainables.activations.stages import PrefixStages
from trainables.activations.store import DiskCache
from trainables.backbones.backbone import Backbone
from trainables.cost_account import CostAccount, CostCounts
from trainables.data.task import Task
from trainables.reuse import DEFAULT_VIEWS

DEFAULT_MEMORY_BYTES = 2 * 2**30
"""Default budget of activations in memory, in bytes."""


class ActivationCache:
    """Activations of the splits of a task under one backbone. Thread-safe.

    Args:
        backbone: the backbone whose prefix is applied.
        task: the task whose images are used.
        budget: bytes in memory.
        directory: folder of the files; None to keep everything in memory.
        disk_budget: bytes of files; None for a share of the disk
            (:func:`trainables.activations.location.default_cache_budget`).
        views: number of views of each augmentation strength; 0 to share no augmented images.
        speeds: speeds of this machine; measured if None.
        stages: stages of another task under the same backbone, so that both are rounded alike.

    Attributes:
        stages: the prefix, for trials that train on images.
        counts: what all trials together found and computed.
    """

    def __init__(
        self,
        backbone: Backbone,
        task: Task,
        budget: int = DEFAULT_MEMORY_BYTES,
        directory: Path | None = None,
        disk_budget: int | None = None,
        views: int = DEFAULT_VIEWS,
        speeds: MachineSpeeds | None = None,
        stages: PrefixStages | None = None,
    ) -> None:
        self.views = views
        self.stages = stages or PrefixStages(backbone, task.split("train").images)
        self.counts = CostCounts()
        self._prefix = FrozenPrefix(backbone, task, self.stages)
        self._counts = task.counts
        self._memory = MemoryCache(budget)
        self._store = DiskCache(directory, disk_budget) if directory is not None else None
        self._speeds = speeds or MeasuredSpeeds(directory)
        self._asked: Counter[tuple[int, float, bool]] = Counter()
        self._locks: defaultdict[ActivationView, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    @property
    def hits(self) -> int:
        """How often activations were found."""
        return self.counts.hits

    @property
    def misses(self) -> int:
        """How often activations had to be computed."""
        return self.counts.misses

    @property
    def derived(self) -> int:
        """How often they were computed from a lower cut instead of the images."""
        return self.counts.derived

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages about problems with the files, each one once."""
        return tuple(self._store.notes) if self._store is not None else ()

    @property
    def bytes(self) -> dict[str, int]:
        """Bytes in ``memory`` and on ``disk`` now. Those on disk belong to all searches of the machine."""
        return {"memory": self._memory.bytes, "disk": self._store.bytes if self._store is not None else 0}

    def fits(self, split: str, depth: int) -> bool:
        """Whether one view of the whole split at ``depth`` may be kept, in memory or on disk."""
        capacity = self._capacity
        needed = self._counts[split] * self._prefix.bytes_per_image(depth)
        return needed <= max(capacity.memory, capacity.disk) * MAX_SHARE

    def decide(self, depth: int, epochs: int, *, strength: float = 0.0, flip: bool = False) -> ReuseDecision:
        """Decide whether a trial of ``epochs`` epochs should train on cached activations.

        The number of trials that will share them is predicted by the past: as many as asked for the same cut,
        strength and flip before, and this one.
        """
        view = ActivationView("train", depth, nearest_level(strength), flip)
        decision = self._decide(view, epochs)
        # After the decision, which counts this trial itself.
        with self._lock:
            self._asked[depth, view.level, flip] += 1
        return replace(decision, depth=depth, level=view.level)

    def dtype(self, depth: int, *, strength: float = 0.0, flip: bool = False) -> str:
        """Return the expected dtype of the training activations at ``depth``: ``float16`` or ``float32``.

        It is a prediction, because single values out of range turn a whole entry into float32.
        """
        kept = self._kept(ActivationView("train", depth, nearest_level(strength), flip))
        return self._prefix.dtype(depth) if kept is None else kept.dtype.name

    def get(
        self,
        split: str,
        depth: int,
        *,
        strength: float = 0.0,
        flip: bool = False,
        view: int = 0,
        account: CostAccount | None = None,
        allow_uncached: bool = False,
    ) -> np.ndarray | None:
        """Return the activations of one view of ``split`` at the cut of ``depth``; None if they can't be kept.

        Args:
            split: train, validation or test.
            depth: number of blocks above the cut, from 0 to one less than all blocks.
            strength: augmentation strength; rounded to the nearest level.
            flip: whether half of the images are mirrored.
            view: number of the view; there is only one without augmentation.
            account: account of the trial, which counts hits, misses and seconds.
            allow_uncached: compute activations that can't be kept for this one call, if half of the free memory
                suffices.

        Returns:
            (N, …) float16, or float32 if float16 can't represent the values. The array is read-only and may be mapped
            from a file, which is not evicted as long as the array or a view of it exists.
        """
        wanted, account = (
            ActivationView(split, depth, nearest_level(strength), flip, view),
            account or CostAccount(),
        )
        kept = self._kept(wanted)
        if kept is None:
            with self._alone(wanted, account):
                # Another thread may have made it while this one waited.
                kept = self._kept(wanted)
                if kept is None:
                    return self._make(wanted, account, allow_uncached)
        self._count_hit(wanted, kept, account)
        return kept

    def cached(self, split: str, depth: int) -> np.ndarray | None:
        """Return what :meth:`get` returns without augmentation if it is cached; None otherwise."""
        return self._kept(ActivationView(split, depth))

    def chunks(self, split: str, depth: int, account: CostAccount | None = None) -> Iterator[np.ndarray]:
        """Yield what :meth:`get` returns without augmentation, in order and in chunks.

        Activations that can't be kept are computed chunk by chunk.
        """
        account = account or CostAccount()
        whole = self.get(split, depth, account=account) if self.fits(split, depth) else None
        if whole is None:
            yield from self._compute(ActivationView(split, depth), account)
            return
        for piece in self.stages.chunk_slices(len(whole)):
            yield whole[piece]

    @property
    def _capacity(self) -> CacheCapacity:
        disk = self._store.budget if self._store is not None and self._store.usable else 0
        return CacheCapacity(self._memory.budget, disk)

    def _decide(self, view: ActivationView, epochs: int) -> ReuseDecision:
        if view.depth >= self.stages.input_depth:
            return ReuseDecision(False, "none", "nothing is frozen")
        if view.augmented and not self.views:
            return ReuseDecision(False, "none", "every epoch has distortions of its own (0 views)")
        if not self._capacity.memory and not self._capacity.disk:
            return ReuseDecision(False, "none", "no room is given to activations")
        views = self.views if view.augmented else 1
        needed = [replace(view, number=number) for number in range(min(views, epochs))]
        kept = sum(map(self._has, needed))
        if kept == len(needed):
            where: CacheLocation = "memory" if self._prefix.key(view).digest in self._memory else "disk"
            return ReuseDecision(True, where, "all of it is there already", views=views, kept=kept)
        # This check measures the stages, so it comes after the look-up. What is cached passed it before it
        # was written.
        refused = self._prefix.nondeterminism(view.depth)
        if refused:
            return ReuseDecision(False, "none", refused)
        sharing = self._asked[view.depth, view.level, view.flip] + 1
        request = self._prefix.cache_request("train", view.depth)
        request = replace(request, views=views, epochs=epochs, sharing=sharing, kept=kept)
        return decide_reuse(request, self._capacity, self._speeds)

    @contextmanager
    def _alone(self, view: ActivationView, account: CostAccount) -> Iterator[None]:
        """Prevent other threads of this process from computing ``view`` at the same time."""
        # A defaultdict is not atomic: two threads could each create a lock for the same view.
        with self._lock:
            lock = self._locks[view]
        with account.timing("wait"):
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _make(self, view: ActivationView, account: CostAccount, allow_uncached: bool) -> np.ndarray | None:
        if self._prefix.nondeterminism(view.depth):
            return None
        request, key = self._prefix.cache_request(view.split, view.depth), self._prefix.key(view)
        where = choose_location(request, self._capacity, self._speeds)
        if where == "disk" and self._store is not None:
            made = self._make_file(view, key, request.images, account)
            if made is not None:
                return made
        # If the file could not be written, memory may still have room.
        kept = where != "none" and request.bytes <= self._memory.budget * MAX_SHARE
        if not kept and not (allow_uncached and request.bytes <= self._speeds.file_cache):
            return None
        whole = self._whole(view, request.images, account)
        if kept:
            self._memory.put(key.digest, whole)
            self._count(account, bytes_written=whole.nbytes)
        return whole

    def _make_file(
        self, view: ActivationView, key: EntryKey, rows: int, account: CostAccount
    ) -> np.ndarray | None:
        if self._store is None:
            return None
        # The entry is computed only if no other process has written it; the misses show which of both happened.
        computed = account.counts.misses
        made = self._store.get_or_compute(
            key,
            rows,
            self.stages.shape(view.depth),
            lambda: self._compute(view, account),
            waiting=lambda: account.timing("wait"),
        )
        if made is None:
            return None
        if account.counts.misses > computed:
            self._count(account, bytes_written=made.nbytes)
        else:  # another process wrote the entry while this one waited for its lock
            self._count_hit(view, made, account)
        return made

    def _whole(self, view: ActivationView, count: int, account: CostAccount) -> np.ndarray:
        whole = np.empty((count, *self.stages.shape(view.depth)), np.float16)
        for piece, part in zip(self.stages.chunk_slices(count), self._compute(view, account), strict=True):
            # One value that exceeds float16 makes the whole array float32, as it does in a file.
            if part.dtype == np.float32 and whole.dtype == np.float16:
                whole = whole.astype(np.float32)
            whole[piece] = part
        # All trials share this array.
        whole.flags.writeable = False
        return whole

    def _compute(self, view: ActivationView, account: CostAccount) -> Iterator[np.ndarray]:
        self._count(account, misses=1)
        # The nearest lower cut first: the fewest stages have to run.
        for depth in range(view.depth + 1, self.stages.input_depth):
            lower = self._kept(view.at(depth))
            if lower is not None:
                self._count(account, derived=1)
                return self._prefix.compute(view, depth, lower)
        return self._prefix.compute(view)

    def _kept(self, view: ActivationView) -> np.ndarray | None:
        key = self._prefix.key(view)
        kept = self._memory.get(key.digest)
        return self._store.open(key) if kept is None and self._store is not None else kept

    def _has(self, view: ActivationView) -> bool:
        key = self._prefix.key(view)
        return key.digest in self._memory or (self._store is not None and key in self._store)

    def _count_hit(self, view: ActivationView, kept: np.ndarray, account: CostAccount) -> None:
        saved = len(kept) * self.stages.known_seconds(view.depth)
        self._count(account, hits=1, bytes_read=kept.nbytes, saved_seconds=saved)

    def _count(self, account: CostAccount, **amounts: float) -> None:
        # An account belongs to one trial, which uses it from one thread at a time; only the common counts
        # need the lock.
        account.counts.add(**amounts)
        with self._lock:
            self.counts.add(**amounts)
