"""The data of a trial that sees images of a target and of a second dataset, the source, in each batch.

In each batch the first images are the target's, the others the source's. An epoch has as many steps as both datasets
have batches, and each dataset is shown in one permutation after the other, whatever its share of a batch. So trials of
all shares take equally long and use one compiled program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from trainables.activations.augmentation_views import view_draws, view_for_epoch
from trainables.compiled.shapes import Batches
from trainables.modalities.image.augment import draw
from trainables.training.feed import DataFeed
from trainables.training.schedule import steps_per_epoch
from trainables.training.source_data import SourceData

_TARGET, _SOURCE = 0x7A6, 0x50C
"""Keep the random orders of both datasets apart, which the same seed decides."""


@dataclass
class MixedDataFeed(DataFeed):
    """The data of a trial that trains on target and source; see :class:`~trainables.training.feed.DataFeed`.

    ``example_inputs`` of :meth:`batches` have a row for each training image of the target, then one for each of the
    source, images of classes that are not shared included.

    Args:
        source: the second dataset. Only its images of shared classes are shown.
        share: its share of each batch. 1 shows no image of the target; otherwise a batch has at least one of each.
    """

    source: SourceData
    share: float

    def __post_init__(self) -> None:
        self._rows = self.source.shared_rows("train")
        super().__post_init__()
        # A batch cannot mix images and activations, so activations are read only if those of both datasets are kept.
        if self.decision.reuse:
            source = self.source.activations.decide(
                self.depth, self.epochs, strength=self.strength, flip=self.flip
            )
            if not source.reuse:
                self.decision = replace(self.decision, reuse=False, reason=f"source: {source.reason}")

    @property
    def source_rows(self) -> int:
        """Number of images in each batch that are the source's."""
        if self.share >= 1:
            return self.batch_size
        return min(max(round(self.share * self.batch_size), 1), self.batch_size - 1)

    def batch_sizes(self) -> tuple[int, int]:
        """Return the images in a batch and the steps in an epoch."""
        images = len(self._rows) + (self._count if self.share < 1 else 0)
        batch = min(self.requested_batch_size, images)
        return batch, steps_per_epoch(images, batch)

    def batches(
        self, epoch: int, example_inputs: Mapping[str, np.ndarray] | None = None
    ) -> Iterator[Batches]:
        """Yield one epoch (from 1), some steps at a time."""
        with self.account.timing("prefix"):
            target, source = self.bench.task.split("train"), self.source.split("train")
            kept = self._kept_activations(epoch), self._kept_source(epoch)
        images: tuple[np.ndarray, np.ndarray] = target.images, source.images
        draws = self._both_draws(epoch) if self.augmented else None
        # If only one dataset's activations can still be kept, the whole epoch is shown as images.
        if kept[0] is not None and kept[1] is not None:
            images, draws = (kept[0], kept[1]), None
        labels = target.labels.astype(np.int32), self.source.labels("train")
        indices = self.order(epoch)
        targets = self.batch_size - self.source_rows
        for part in self._split_steps(indices, target.images[:1].nbytes):
            rows = part[:, :targets], part[:, targets:]
            with self.account.timing("data"):
                batches = Batches(
                    _join_rows(images, rows),
                    _join_rows(labels, rows),
                    None if draws is None else _join_rows(draws, rows),
                    {
                        name: _join_rows((a[: self._count], a[self._count :]), rows)
                        for name, a in (example_inputs or {}).items()
                    },
                )
            yield batches

    def order(self, epoch: int) -> np.ndarray:
        """Return row numbers (steps, batch) int64 of the target's train split, then of the source's.

        They are a function of (seed, epoch).
        """
        count = self.source_rows
        source = self._rows[
            repeated_permutations(len(self._rows), self.steps * count, self.seed, epoch, _SOURCE)
        ]
        target = repeated_permutations(
            self._count, self.steps * (self.batch_size - count), self.seed, epoch, _TARGET
        )
        return np.concatenate([target.reshape(self.steps, -1), source.reshape(self.steps, -1)], axis=1)

    def activation_epoch(self, epoch: int) -> None:
        """Return None: heads that train on two datasets are not trained in one batch with others."""
        return

    def _kept_source(self, epoch: int) -> np.ndarray | None:
        if not self.decision.reuse:
            return None
        return self.source.activations.get(
            "train",
            self.depth,
            strength=self.strength,
            flip=self.flip,
            view=view_for_epoch(epoch, self._views) if self.augmented else 0,
            account=self.account,
            allow_uncached=True,
        )

    def _both_draws(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Random numbers of the augmentation for the target's and the source's images."""
        count = self.source.task.counts["train"]
        if self._views:
            view = view_for_epoch(epoch, self._views)
            return self._draws(epoch), view_draws(count, self.strength, self.flip, view)
        return self._draws(epoch), draw(count, self.seed & 0x7FFFFFFF, epoch, _SOURCE)


def repeated_permutations(images: int, wanted: int, seed: int, epoch: int, key: int) -> np.ndarray:
    """Return (wanted,) int64 indices below ``images``, one permutation after the other.

    So no image is shown more than once more than any other.
    """
    generator = np.random.default_rng([seed, epoch, key])
    rounds = [generator.permutation(images) for _ in range(-(-wanted // images))]
    return np.concatenate([*rounds, np.zeros(0, np.int64)])[:wanted].astype(np.int64)


def _join_rows(arrays: tuple[np.ndarray, np.ndarray], rows: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Take rows (S, b) of each array and join them to (S, B, …)."""
    return np.concatenate([array[part] for array, part in zip(arrays, rows, strict=True)], axis=1)
