"""The data of a trial: which images it sees, in which order, with which augmentation, and in which form.

Below a frozen prefix the images come as activations if :class:`~trainables.activations.activations.ActivationCache`
keeps them; otherwise they come as pixels, and the compiled step runs the prefix. Both ways show the same augmented
views in the same order, so a trial gets the same numbers either way.
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
"""Largest input of one call of the compiled epoch, in bytes. It bounds the memory that is copied at once."""


@dataclass
class DataFeed:
    """The data of one trial.

    Args:
        bench: has the task and the cache of activations.
        depth: how many blocks train; those below are the frozen prefix.
        epochs: number of epochs, by which the reuse policy estimates what keeping activations saves.
        batch_size: images in a step; fewer if there are fewer training images.
        seed: decides the order of the images, and their augmentation if views are not shared.
        strength: of augmentation, in [0, 1].
        flip: whether images are mirrored at random.
        live: train and evaluate on images, with fresh augmentation in every epoch and without rounding. The winner of a
            search is confirmed in this way.
        account: is charged with the seconds of data and prefix.

    Attributes:
        decision: whether kept activations are read, and why.
        exact: whether the prefix runs on images and without rounding: ``live``, or nothing is frozen.
        strength: the nearest quantised level if views are shared between trials.
        steps: steps in an epoch.
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
        self.requested_batch_size = self.batch_size
        self.batch_size, self.steps = self.batch_sizes()
        self.exact = self.live or self.depth >= activations.stages.input_depth
        self._views = 0 if self.exact else activations.views
        if self._views:
            self.strength = nearest_level(self.strength)
        self.augmented = self.strength > 0 or self.flip
        with self.account.timing("prefix"):
            self.decision = self._decide()

    def batch_sizes(self) -> tuple[int, int]:
        """Return the images in a batch and the steps in an epoch."""
        batch = min(self.requested_batch_size, self._count)
        return batch, steps_per_epoch(self._count, batch)

    def describe(self) -> dict[str, Any]:
        """Return how this trial sees its images, as JSON values that a checkpoint stores."""
        return {"exact": self.exact, "views": self._views, "decision": self.decision.describe()}

    def restore(self, described: Mapping[str, Any]) -> None:
        """See images as the same trial did when :meth:`describe` was called, whatever would be decided now.

        Raises:
            ValueError: rounding or number of views differ, so that is impossible; nothing has changed.
        """
        decision = ReuseDecision.read(described["decision"])
        if (described["exact"], described["views"]) != (self.exact, self._views):
            raise ValueError(
                f"expected exact={self.exact} and {self._views} views, "
                f"received exact={described['exact']} and {described['views']} views"
            )
        self.decision = decision

    @property
    def input_kinds(self) -> tuple[str, str]:
        """Kinds of the training and of the evaluation inputs (:meth:`trainables.compiled.program.Program.compile`)."""
        if self.exact:
            return self.image_kind, "uint8"
        activations = self.bench.activations.dtype(self.depth)
        return activations if self.decision.reuse else self.image_kind, activations

    @property
    def image_kind(self) -> str:
        """Kind of the training inputs if they are images."""
        return AUGMENTED if self.augmented else "uint8"

    def batches(
        self, epoch: int, example_inputs: Mapping[str, np.ndarray] | None = None
    ) -> Iterator[Batches]:
        """Yield one epoch (from 1), some steps at a time.

        Args:
            epoch: decides the order and, if views are not shared, the augmentation.
            example_inputs: arrays that the loss needs, (N, …) with one row for each training image.
        """
        with self.account.timing("prefix"):
            split, kept = self.bench.task.split("train"), self._kept_activations(epoch)
        source = split.images if kept is None else kept
        draws = self._draws(epoch) if self.augmented and kept is None else None
        indices = batch_order(self._count, self.batch_size, self.seed, epoch)
        for part in self._split_steps(indices, split.images[:1].nbytes):
            with self.account.timing("data"):
                drawn = draws[part] if draws is not None else None
                own = {name: rows[part] for name, rows in (example_inputs or {}).items()}
                batches = Batches(source[part], split.labels[part].astype(np.int32), drawn, own)
            yield batches

    def activation_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the kept activations (N, …) of one epoch (from 1) and the rows (steps, batch) of each step.

        None if this trial reads no kept activations, or if the cache cannot provide them any longer.
        """
        with self.account.timing("prefix"):
            kept = self._kept_activations(epoch)
        return None if kept is None else (kept, batch_order(self._count, self.batch_size, self.seed, epoch))

    def chunks(self, split: str) -> Iterator[np.ndarray]:
        """Yield images or activations of ``split`` for evaluation: not augmented, in order, in chunks."""
        chunks = self._chunks(split)
        # Not a ``for`` loop: only the computation of a chunk is charged to the prefix, not the caller's work on it.
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
        """Decide whether kept activations are read."""
        if self.live:
            return ReuseDecision(False, "none", "confirmed on images", self.depth, self.strength)
        if self.augmented and not self._views and not self.exact:
            return ReuseDecision(
                False, "none", "every epoch has distortions of its own", self.depth, self.strength
            )
        return self.bench.activations.decide(self.depth, self.epochs, strength=self.strength, flip=self.flip)

    def _kept_activations(self, epoch: int) -> np.ndarray | None:
        """The kept activations (N, …) that ``epoch`` shows; None to compute them in the step."""
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
        """Random numbers (N, DRAWS) by which the images of ``epoch`` are augmented: those of a view, or fresh ones."""
        if self._views:
            return view_draws(self._count, self.strength, self.flip, view_for_epoch(epoch, self._views))
        return draw(self._count, self.seed & 0x7FFFFFFF, epoch)

    def _split_steps(self, indices: np.ndarray, image_bytes: int) -> Iterator[np.ndarray]:
        """Split ``indices`` (steps, batch) into parts of whole steps whose inputs fit into CHUNK_BYTES.

        The sizes depend on shapes alone, never on whether activations are kept: dropout masks of the blocks are drawn
        part by part, so other parts would change a trial's numbers.
        """
        stages = self.bench.activations.stages
        kept_bytes = 4 * math.prod(stages.shape(self.depth)) if self.depth < stages.input_depth else 0
        size = max(1, CHUNK_BYTES // (max(image_bytes, kept_bytes) * self.batch_size))
        for start in range(0, len(indices), size):
            yield indices[start : start + size]
