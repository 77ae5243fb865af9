"""Warps a batch of glyphs: affine, perspective and elastic."""

from __future__ import annotations

import numpy as np
from PIL import Image

from trainables.modalities.image.print_backbone.distortions import Distortions
from trainables.modalities.image.print_backbone.render import CANVAS, Bytes
from trainables.modalities.image.print_backbone.resample import Floats, resampling


def coordinates(glyphs: Bytes, rng: np.random.Generator, how: Distortions) -> tuple[Floats, Floats]:
    """Draw a warp for each glyph and return the source of each pixel: x and y, each (N, 48, 48), in glyph pixels."""
    count = len(glyphs)
    axis = (np.arange(CANVAS, dtype=np.float32) + 0.5) / CANVAS * 2 - 1
    x, y = np.broadcast_to(axis, (count, CANVAS, CANVAS)), axis[:, None]
    shift = rng.uniform(-how.shift, how.shift, (2, count, 1, 1)).astype(np.float32) * 2
    x, y = x - shift[0], y - shift[1]
    bend = rng.uniform(-how.perspective, how.perspective, (2, count, 1, 1)).astype(np.float32)
    depth = 1 + bend[0] * x + bend[1] * y
    angle = np.deg2rad(rng.normal(0, how.rotation / 2, (count, 1, 1))).astype(np.float32)
    slant = rng.uniform(-how.shear, how.shear, (count, 1, 1)).astype(np.float32)
    u = (np.cos(angle) * x + np.sin(angle) * y) / depth
    v = (-np.sin(angle) * x + np.cos(angle) * y) / depth
    u = u + slant * v
    wide, tall = _half_sizes(glyphs)
    height = rng.uniform(*how.height, (count, 1, 1)).astype(np.float32)
    width = height * _widths(wide / tall, rng, how)
    field = _smooth_field(rng, count, how.elastic)
    centre = (CANVAS - 1) / 2
    return u / width * wide + centre + field[0], v / height * tall + centre + field[1]


def _half_sizes(glyphs: Bytes) -> tuple[Floats, Floats]:
    """Return half the width and half the height of each glyph's ink, each (N, 1, 1), in glyph pixels."""
    columns = (glyphs.max(axis=1) > 64).sum(axis=1)
    rows = (glyphs.max(axis=2) > 64).sum(axis=1)
    sizes = np.stack([columns, rows]).astype(np.float32)[..., None, None] / 2
    sizes = np.maximum(sizes, 2.0)
    return sizes[0], sizes[1]


def _widths(natural: Floats, rng: np.random.Generator, how: Distortions) -> Floats:
    """Return the ink width relative to its height: the glyph's own, stretched at random and clipped to a range."""
    stretch = np.exp(rng.uniform(-0.35, 0.35, natural.shape)).astype(np.float32)
    low, high = how.aspect
    narrow = natural < 0.3  # a single stroke such as "1" stays narrow
    return np.where(narrow, natural * np.maximum(stretch, 1.0), np.clip(natural * stretch, low, high))


def _smooth_field(rng: np.random.Generator, count: int, strength: float) -> Floats:
    """Draw a smooth displacement (2, N, 48, 48), interpolated from a 5×5 grid of control points."""
    scale = rng.uniform(0, strength, (1, count, 1, 1)).astype(np.float32)
    points = scale * rng.standard_normal((2, count, 5, 5), dtype=np.float32)
    up = resampling(5, CANVAS, Image.Resampling.BICUBIC)
    return np.asarray(up @ points @ up.T)


def warp(images: Floats, x: Floats, y: Floats) -> Floats:
    """Sample each image (N, 48, 48) bilinearly at (x, y); black outside."""
    count = len(images)
    padded = np.zeros((count, CANVAS + 2, CANVAS + 2), np.float32)
    padded[:, 1:-1, 1:-1] = images
    # The upper bound keeps the right and the lower neighbour of each sample inside the padding.
    x, y = np.clip(x + 1, 0, CANVAS + 0.999), np.clip(y + 1, 0, CANVAS + 0.999)
    left, top = x.astype(np.int32), y.astype(np.int32)
    right, below = x - left, y - top
    flat = padded.reshape(-1)
    width = CANVAS + 2
    start = np.arange(count, dtype=np.int32)[:, None, None] * (width * width) + top * width + left
    upper = flat[start] * (1 - right) + flat[start + 1] * right
    lower = flat[start + width] * (1 - right) + flat[start + width + 1] * right
    return np.asarray(upper * (1 - below) + lower * below, dtype=np.float32)
