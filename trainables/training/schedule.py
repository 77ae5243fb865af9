"""Schedules of a training: the order of the data, the learning rate of each step, and gradual unfreezing.

All of them are pure functions of the seed and the epoch, so a resumed trial needs no state for them.
"""

from __future__ import annotations

import math

import numpy as np

WARMUP_SHARE = 0.1
"""Share of all steps over which the learning rate rises linearly from zero."""


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return the number of steps in an epoch that shows every image at least once."""
    return math.ceil(images / batch_size)


def batch_order(images: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Return the row numbers of the images in each step of one epoch: (steps, batch_size) int64.

    They are a random permutation, a function of (seed, epoch) alone. The last batch is filled up from the start of the
    same permutation: all batches have one shape, so one compiled step serves them all.
    """
    generator = np.random.default_rng([seed, epoch, 0x0DE])
    steps = steps_per_epoch(images, batch_size)
    permutation = generator.permutation(images)
    return np.resize(permutation, (steps, batch_size)).astype(np.int64)


def learning_rates(peak: float, epoch: int, epochs: int, steps: int) -> np.ndarray:
    """Return the learning rate of each step in one epoch: linear warm-up, then cosine decay to zero.

    Args:
        peak: the highest rate, at the end of the warm-up.
        epoch: number of the epoch, from 1.
        epochs: number of epochs of the whole training.
        steps: steps in an epoch.

    Returns:
        (steps,) float32.
    """
    total = epochs * steps
    warm = max(1, round(WARMUP_SHARE * total))
    at = np.arange((epoch - 1) * steps, epoch * steps, dtype=np.float64)
    rising = (at + 1) / warm
    falling = 0.5 * (1 + np.cos(np.pi * (at + 1 - warm) / max(1, total - warm)))
    return (peak * np.where(at + 1 <= warm, rising, falling)).astype(np.float32)


def trainable_blocks(depth: int, share: float, epoch: int, epochs: int) -> int:
    """Return how many of the top ``depth`` blocks train in ``epoch`` (from 1) of ``epochs``: gradual unfreezing.

    The head trains alone at first; then, in equal intervals, the blocks join it one by one from the top, the last one
    after a ``share`` of the epochs. With a share of 0 all of them train from the start. In the paper the intervals are
    single epochs (Howard & Ruder 2018, https://arxiv.org/abs/1801.06146, section 3.3).
    """
    if share <= 0:
        return depth
    interval = share * epochs / max(1, depth)
    # The small addend keeps a block from starting an epoch late if the quotient is a hair below a whole number.
    return min(depth, math.floor((epoch - 1) / interval + 1e-9))


def block_rate_ratios(depth: int, ratio: float, decay: float, training: int) -> np.ndarray:
    """Return the learning rates of the top blocks as shares of the head's: (depth,) float32, bottom first.

    The block i below the top one has ``ratio`` · ``decay``ⁱ (discriminative fine-tuning, Howard & Ruder 2018,
    https://arxiv.org/abs/1801.06146, section 3.2).

    Args:
        depth: number of blocks.
        ratio: share of the top block.
        decay: factor from each block to the one below it, above 0 and at most 1.
        training: how many blocks train, counted from the top; those below have a share of 0.
    """
    below = np.arange(depth - 1, -1, -1)
    return np.where(below < training, ratio * np.power(float(decay), below), 0.0).astype(np.float32)
