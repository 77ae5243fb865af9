"""What happens when in a training: the order of the data and the learning rate of each step."""

from __future__ import annotations

import math

import numpy as np

WARMUP_SHARE = 0.1
"""Share of all steps over which the learning rate rises linearly from zero."""


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Steps in an epoch that shows every image at least once."""
    return math.ceil(images / batch_size)


def batch_order(images: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """The images of one epoch: (steps, batch_size) int64 indices, a function of (seed, epoch) alone.

    The last batch is filled up from the start of the same permutation, so that all batches have one shape.
    """
    generator = np.random.default_rng([seed, epoch, 0x0DE])
    steps = steps_per_epoch(images, batch_size)
    permutation = generator.permutation(images)
    return np.resize(permutation, (steps, batch_size)).astype(np.int64)


def learning_rates(peak: float, epoch: int, epochs: int, steps: int) -> np.ndarray:
    """Learning rates (steps,) float32 of ``epoch`` (from 1) of ``epochs``: linear warm-up, then cosine to zero."""
    total = epochs * steps
    warm = max(1, round(WARMUP_SHARE * total))
    at = np.arange((epoch - 1) * steps, epoch * steps, dtype=np.float64)
    rising = (at + 1) / warm
    falling = 0.5 * (1 + np.cos(np.pi * (at + 1 - warm) / max(1, total - warm)))
    return (peak * np.where(at + 1 <= warm, rising, falling)).astype(np.float32)


def trainable_blocks(depth: int, share: float, epoch: int, epochs: int) -> int:
    """How many of the top ``depth`` blocks train in ``epoch`` (from 1) of ``epochs``: gradual unfreezing.

    The head trains alone at first; then, in equal intervals, the blocks join it one by one from the top, the last one
    after a ``share`` of the epochs (Howard & Ruder 2018, https://arxiv.org/abs/1801.06146, section 3.3, where the
    intervals are single epochs). With a share of 0 all of them train from the start.
    """
    if share <= 0:
        return depth
    interval = share * epochs / max(1, depth)
    return min(depth, math.floor((epoch - 1) / interval + 1e-9))


def block_rate_ratios(depth: int, ratio: float, decay: float, training: int) -> np.ndarray:
    """Learning rates (depth,) float32 of the unfrozen blocks, bottom first, as shares of the head's.

    The block i below the top one has ``ratio`` · ``decay``ⁱ (layer-wise decay: Howard & Ruder 2018, section 3.2,
    "discriminative fine-tuning"); those below the top ``training`` ones have 0.
    """
    below = np.arange(depth - 1, -1, -1)
    return np.where(below < training, ratio * np.power(float(decay), below), 0.0).astype(np.float32)
