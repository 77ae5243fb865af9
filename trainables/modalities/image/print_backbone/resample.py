"""Resampling and blur as matrices: applied to the rows and to the columns of a batch of images."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]


@cache
def gaussian(size: int, sigma: float) -> Floats:
    """The (size, size) matrix of a Gaussian blur along one axis."""
    position = np.arange(size, dtype=np.float32)
    if sigma < 0.1:
        return np.eye(size, dtype=np.float32)
    weights = np.exp(-0.5 * ((position[:, None] - position) / sigma) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


@cache
def area(source: int, target: int) -> Floats:
    """The (target, source) matrix that averages the source pixels under each target pixel."""
    edges = np.arange(target + 1) * source / target
    pixel = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.asarray(np.maximum(overlap, 0) * target / source, dtype=np.float32)


@cache
def resampling(source: int, target: int, how: Image.Resampling) -> Floats:
    """The (target, source) matrix of Pillow's own resampling filter along one axis."""
    columns = [
        np.asarray(Image.fromarray(row[:, None]).resize((1, target), how))[:, 0]
        for row in np.eye(source, dtype=np.float32)
    ]
    return np.stack(columns, axis=1)
