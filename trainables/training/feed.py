"""What a training sees: which images, in which order, under which distortions, and where they come from.

Where a prefix is frozen, images come as activations if
:class:`~trainables.activations.activations.ActivationCache` keeps them, and
else as pixels that go through the same prefix in the compiled step. Both ways show the same views in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables.activations.augmentation_views import nearest_level, view_draws, view_for_epoch
from trainables.activations.reuse_policy import ReuseDecision
from trainables.compiled.shapes import AUGMENTED, Batches
from trainables.cost_account import CostAccount
from trainables.modalities.image.augment import draw
from trainables.training.schedule import batch_order, steps_per_epoch

if TYPE_CHECKING:
    from trainables.training.workbench import Workbench

CHUNK_BYTES = 64 * 2**20
"""Input bytes that one call of the compiled epoch gets, at most."""


@dataclass
class DataFeed:
    """The data of one trial.

    ``live`` trains and evaluates on images, with distortions of their own in every epoch, and without rounding: the
    way a winner is confirmed. ``account`` is told what took how many seconds.

    Attributes:
        decision: whether kept activations are read, and why.
        exact: whether the prefix runs on images as it is (live, or nothing is frozen).
        strength: of the augmentation; the nearest level where views are shared.
        steps: per epoch.
    """

    bench: Workbench
    depth: int
    epochs: int
    batch_size: int
    seed: int
    strength: float
    flip: bool
    live: bool
    account: CostAccount

    def __post_init__(self) -> None:
        activations = self.bench.activations
        self._count = self.bench.task.counts["train"]
        self.asked_batch = self.batch_size
        self.batch_size, self.steps = self.sizes()
        self.exact = self.live or self.depth >= activations.stages.input_depth
        self._views = 0 if self.exact else activations.views
        if self._views:
            self.strength = nearest_level(self.strength)
        self.augmented = self.strength > 0 or self.flip
        with self.account.timing("prefix"):
            self.decision = self._decide()

    def sizes(self) -> tuple[int, int]:
        """Images in a batch, and steps in an epoch."""
        batch = min(self.asked_batch, self._count)
        return batch, steps_per_epoch(self._count, batch)

    def describe(self) -> dict[str, Any]:
        """How this trial sees its images, as JSON values."""
        return {"exact": self.exact, "views": self._views, "decision": self.decision.describe()}

    def follow(self, described: Mapping[str, Any]) -> None:
        """See images as :meth:`describe` said of the same trial, whatever would be decided now.

        Raises:
            ValueError: that is not possible; nothing has changed.
        """
        decision = ReuseDecision.read(described["decision"])
        if (described["exact"], described["views"]) != (self.exact, self._views):
            raise ValueError(
                f"expected exact={self.exact} and {self._views} views, "
                f"received exact={described['exact']} and {described['views']} views"
            )
        self.decision = decision

    @property
    def kinds(self) -> tuple[str, str]:
        """Types of the inputs of training and of evaluation (see
        :meth:`trainables.compiled.program.Program.compile`).
        """
        if self.exact:
            return self.images_kind, "uint8"
        activations = self.bench.activations.dtype(self.depth)
        return activations if self.decision.reuse else self.images_kind, activations

    @property
    def images_kind(self) -> str:
        """Type of the inputs of a training on images."""
        return AUGMENTED if self.augmented else "uint8"

    def batches(self, epoch: int, beside: Mapping[str, np.ndarray] | None = None) -> Iterator[Batches]:
        """One epoch (from 1), some steps at a time; ``beside`` are arrays with a row (N, …) for each image."""
        with self.account.timing("prefix"):
            split, kept = self.bench.task.split("train"), self._kept(epoch)
        source = split.images if kept is None else kept
        draws = self._draws(epoch) if self.augmented and kept is None else None
        indices = batch_order(self._count, self.batch_size, self.seed, epoch)
        for part in self._parts(indices, split.images[:1].nbytes):
            with self.account.timing("data"):
                drawn = draws[part] if draws is not None else None
                extras = {name: rows[part] for name, rows in (beside or {}).items()}
                batches = Batches(source[part], split.labels[part].astype(np.int32), drawn, extras)
            yield batches

    def rows(self, epoch: int) -> tuple[np.ndarray, np.ndarray] | None:
        """One epoch (from 1) as kept activations (N, …) and the rows (steps, batch) to take, or None."""
        with self.account.timing("prefix"):
            kept = self._kept(epoch)
        return None if kept is None else (kept, batch_order(self._count, self.batch_size, self.seed, epoch))

    def chunks(self, split: str) -> Iterator[np.ndarray]:
        """Images or activations of ``split``, undistorted, in order and in pieces, for evaluation."""
        chunks = self._chunks(split)
        while True:
            with self.account.timing("prefix"):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    def _chunks(self, split: str) -> Iterator[np.ndarray]:
        if not self.exact:
            yield from self.bench.activations.chunks(split, self.depth, self.account)
            return
        images = self.bench.task.split(split).images
        for piece in self.bench.activations.stages.chunk_slices(len(images)):
            yield images[piece]

    def _decide(self) -> ReuseDecision:
        if self.live:
            return ReuseDecision(False, "none", "confirmed on images", self.depth, self.strength)
        if self.augmented and not self._views and not self.exact:
            return ReuseDecision(
                False, "none", "every epoch has distortions of its own", self.depth, self.strength
            )
        return self.bench.activations.decide(self.depth, self.epochs, strength=self.strength, flip=self.flip)

    def _kept(self, epoch: int) -> np.ndarray | None:
        if not self.decision.reuse:
            return None
        view = view_for_epoch(epoch, self._views) if self.augmented else 0
        return self.bench.activations.get(
            "train",
            self.depth,
            strength=self.strength,
            flip=self.flip,
            view=view,
            account=self.account,
            allow_uncached=True,
        )

    def _draws(self, epoch: int) -> np.ndarray:
        if self._views:
            return view_draws(self._count, self.strength, self.flip, view_for_epoch(epoch, self._views))
        return draw(self._count, self.seed & 0x7FFFFFFF, epoch)

    def _parts(self, indices: np.ndarray, image_bytes: int) -> Iterator[np.ndarray]:
        """``indices`` (steps, batch) in parts that depend on shapes alone: masks of dropout are drawn part by part."""
        stages = self.bench.activations.stages
        kept_bytes = 4 * math.prod(stages.shape(self.depth)) if self.depth < stages.input_depth else 0
        size = max(1, CHUNK_BYTES // (max(image_bytes, kept_bytes) * self.batch_size))
        for start in range(0, len(indices), size):
            yield indices[start : start + size]
