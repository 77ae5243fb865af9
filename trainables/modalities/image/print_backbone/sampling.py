"""Samples the glyphs of a pretraining batch: whole font families are held out, digits are more frequent than
letters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from trainables.modalities.image.print_backbone.distort import distort
from trainables.modalities.image.print_backbone.distortions import Distortions
from trainables.modalities.image.print_backbone.render import Bytes, Glyphs

DIGITS = 10
HELD_OUT = 0.1
"""Share of the font families that no training batch contains."""


@dataclass(frozen=True)
class FamilySplit:
    """Indices (n,) int64 of the glyphs to train on and of those of held-out families."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]


def split_families(glyphs: Glyphs, seed: int) -> FamilySplit:
    """Hold out a tenth of the families, drawn by ``seed``: at least one of two or more, none of one."""
    count = len(glyphs.names)
    out = max(1, round(HELD_OUT * count)) if count > 1 else 0
    chosen = np.random.default_rng([seed, 1]).permutation(count)[:out]
    held = np.isin(glyphs.families, chosen)
    return FamilySplit(np.flatnonzero(~held), np.flatnonzero(held))


def probabilities(glyphs: Glyphs, chosen: NDArray[np.int64], digit_share: float) -> NDArray[np.float64]:
    """Return the probability of each of the glyphs ``chosen`` (n,): (n,) float64 that sum to 1.

    ``digit_share`` of the images are digits. All digits are equally frequent, and so are all classes of letters. Within
    a class a glyph is weighted by the size of its family to the power of −0.75, so that large families do not dominate.
    """
    labels, families = glyphs.labels[chosen], glyphs.families[chosen]
    weight = np.bincount(families)[families] ** -0.75
    total = np.bincount(labels, weight)[labels]
    letters = max(1, len(np.unique(labels[labels >= DIGITS])))
    share = np.where(labels < DIGITS, digit_share / DIGITS, (1 - digit_share) / letters)
    result = weight / total * share
    return np.asarray(result / result.sum())


class PrintBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of distorted print: ((B, 32, 32, 3) float32 pixels, (B,) int64 classes); batch i is a function of
    (seed, i)."""

    def __init__(
        self,
        glyphs: Glyphs,
        chosen: NDArray[np.int64],
        *,
        steps: int,
        batch_size: int,
        digit_share: float,
        seed: int,
        how: Distortions,
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=16)
        self.glyphs, self.chosen, self.how = glyphs, chosen, how
        self.steps, self.batch_size, self.seed = steps, batch_size, seed
        self.cumulative = np.cumsum(probabilities(glyphs, chosen, digit_share))

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[Any, NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, 2, index])
        drawn = np.searchsorted(self.cumulative, rng.random(self.batch_size), side="right")
        # Rounding may leave the last cumulative sum slightly below 1, and a draw above it.
        glyphs = self.chosen[np.minimum(drawn, len(self.chosen) - 1)]
        return as_pixels(distort(self.glyphs.images[glyphs], rng, self.how)), self.glyphs.labels[glyphs]


def as_pixels(images: Bytes) -> NDArray[np.float32]:
    """Convert grey images (N, H, W) uint8 to the backbone's input (N, H, W, 3) float32, 0..255."""
    return np.repeat(images[..., None], 3, axis=-1).astype(np.float32)
