"""Builds matrices for resampling and blur, which are applied to the rows and columns of a batch of images."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]


@cache
def gaussian(size: int, sigma: float) -> Floats:
    """Return the (size, size) matrix of a Gaussian blur along one axis; ``sigma`` is in pixels."""
    position = np.arange(size, dtype=np.float32)
    if sigma < 0.1:
        return np.eye(size, dtype=np.float32)
    weights = np.exp(-0.5 * ((position[:, None] - position) / sigma) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


@cache
def area(source: int, target: int) -> Floats:
    """Return the (target, source) matrix that averages the source pixels below each target pixel."""
    edges = np.arange(target + 1) * source / target
    pixel = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.asarray(np.maximum(overlap, 0) * target / source, dtype=np.float32)


@cache
def resampling(source: int, target: int, how: Image.Resampling) -> Floats:
    """Return the (target, source) matrix of a resampling filter of Pillow along one axis."""
    columns = [
        np.asarray(Image.fromarray(row[:, None]).resize((1, target), how))[:, 0]
        for row in np.eye(source, dtype=np.float32)
    ]
    return np.stack(columns, axis=1)
