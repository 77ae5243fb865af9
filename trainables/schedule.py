"""What happens when in a training: the order of the data and the learning rate of each step."""

from __future__ import annotations

import math

import numpy as np

WARMUP = 0.1
"""Share of all steps over which the learning rate rises linearly from zero."""


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Steps in an epoch that shows every image at least once."""
    return math.ceil(images / batch_size)


def order(images: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
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
    warm = max(1, round(WARMUP * total))
    at = np.arange((epoch - 1) * steps, epoch * steps, dtype=np.float64)
    rising = (at + 1) / warm
    falling = 0.5 * (1 + np.cos(np.pi * (at + 1 - warm) / max(1, total - warm)))
    return (peak * np.where(at + 1 <= warm, rising, falling)).astype(np.float32)
