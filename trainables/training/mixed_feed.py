"""Batches of target and source images together.

Of each batch the first rows are the target's, the others the source's. An epoch has as many steps as both sets have
batches; each set is shown in permutation after permutation, whatever its share of a batch, so that trials of any share
take as long and are compiled alike.
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


@dataclass
class MixedDataFeed(DataFeed):
    """The data of a trial that sees ``source`` too, which is ``share`` of each batch.

    ``beside`` of :meth:`batches` has a row for each image of the target, then one for each of the source's train split.
    A share of 1 shows no target image at all. Otherwise a batch has at least one image of each.
    """

    source: SourceData
    share: float

    def __post_init__(self) -> None:
        self._rows = self.source.rows("train")
        super().__post_init__()
        if self.decision.reuse:
            beside = self.source.activations.decide(
                self.depth, self.epochs, strength=self.strength, flip=self.flip
            )
            if not beside.reuse:
                self.decision = replace(self.decision, reuse=False, reason=f"source: {beside.reason}")

    @property
    def source_rows(self) -> int:
        """How many images of each batch are the source's."""
        if self.share >= 1:
            return self.batch_size
        return min(max(round(self.share * self.batch_size), 1), self.batch_size - 1)

    def sizes(self) -> tuple[int, int]:
        """Images in a batch, and steps in an epoch."""
        images = len(self._rows) + (self._count if self.share < 1 else 0)
        batch = min(self.asked_batch, images)
        return batch, steps_per_epoch(images, batch)

    def batches(self, epoch: int, beside: Mapping[str, np.ndarray] | None = None) -> Iterator[Batches]:
        """One epoch (from 1), some steps at a time."""
        with self.account.timing("prefix"):
            target, source = self.bench.task.split("train"), self.source.split("train")
            kept = self._kept(epoch), self._kept_source(epoch)
        images: tuple[np.ndarray, np.ndarray] = target.images, source.images
        draws = self._both_draws(epoch) if self.augmented else None
        if kept[0] is not None and kept[1] is not None:
            images, draws = (kept[0], kept[1]), None
        labels = target.labels.astype(np.int32), self.source.labels("train")
        indices = self.order(epoch)
        targets = self.batch_size - self.source_rows
        for part in self._parts(indices, target.images[:1].nbytes):
            rows = part[:, :targets], part[:, targets:]
            with self.account.timing("data"):
                batches = Batches(
                    _join_rows(images, rows),
                    _join_rows(labels, rows),
                    None if draws is None else _join_rows(draws, rows),
                    {
                        name: _join_rows((a[: self._count], a[self._count :]), rows)
                        for name, a in (beside or {}).items()
                    },
                )
            yield batches

    def order(self, epoch: int) -> np.ndarray:
        """(steps, batch) int64, a function of (seed, epoch): rows of the target's train split, then of the source's."""
        count = self.source_rows
        source = self._rows[
            repeated_permutations(len(self._rows), self.steps * count, self.seed, epoch, _SOURCE)
        ]
        target = repeated_permutations(
            self._count, self.steps * (self.batch_size - count), self.seed, epoch, _TARGET
        )
        return np.concatenate([target.reshape(self.steps, -1), source.reshape(self.steps, -1)], axis=1)

    def rows(self, epoch: int) -> None:
        """None: trials of both sets do not share heads."""
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
        count = self.source.task.counts["train"]
        if self._views:
            view = view_for_epoch(epoch, self._views)
            return self._draws(epoch), view_draws(count, self.strength, self.flip, view)
        return self._draws(epoch), draw(count, self.seed & 0x7FFFFFFF, epoch, _SOURCE)


def repeated_permutations(images: int, wanted: int, seed: int, epoch: int, key: int) -> np.ndarray:
    """(wanted,) int64 indices below ``images``: permutation after permutation, so that counts differ by one at most."""
    generator = np.random.default_rng([seed, epoch, key])
    rounds = [generator.permutation(images) for _ in range(-(-wanted // images))]
    return np.concatenate([*rounds, np.zeros(0, np.int64)])[:wanted].astype(np.int64)


def _join_rows(arrays: tuple[np.ndarray, np.ndarray], rows: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return np.concatenate([array[part] for array, part in zip(arrays, rows, strict=True)], axis=1)
