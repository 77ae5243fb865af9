"""Distortions that take a clean glyph to what a pen, a scanner and a small sensor would leave of it.

In this order: stroke width (dilate or erode), affine and elastic warp (partial crops come from it),
blur and low resolution down to 8 px with few grey levels, back up to 32 px, noise, contrast.
Everything is NumPy over a whole batch; resampling and blur are matrices applied to rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainables.builtin.render import CANVAS, Bytes

Floats = NDArray[np.float32]

SIZE = 32
"""Side of a finished image, pixels."""
_FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.NEAREST)


@dataclass(frozen=True)
class Distortions:
    """How strong each distortion is; a pair is the range that an image's own value is drawn from."""

    thickness: tuple[float, float] = (-1.5, 3.5)  # pixels of a glyph's 48 px canvas, negative erodes
    height: tuple[float, float] = (0.78, 1.08)  # ink height in heights of the image
    aspect: tuple[float, float] = (0.45, 1.0)  # ink width in heights of the ink
    rotation: float = 22.0  # degrees, standard deviation is half of it
    shear: float = 0.45
    shift: float = 0.08  # in widths of the image
    perspective: float = 0.15
    elastic: float = 3.0  # pixels of the 48 px canvas, at the control points
    blur: tuple[float, float] = (0.0, 1.4)  # standard deviation, pixels of the 48 px canvas
    resolutions: tuple[int, ...] = (8, 8, 8, 9, 10, 12, 14, 16, 20, 24, 32)  # drawn from, pixels
    noise: float = 0.06  # in units of full contrast, the greatest standard deviation
    floor: float = 0.6  # the least brightness of the ink


def distort(glyphs: Bytes, rng: np.random.Generator, how: Distortions = Distortions()) -> Bytes:
    """Distorted images: (N, 48, 48) uint8 glyphs to (N, 32, 32) uint8, white on black.

    The same generator state gives the same images.
    """
    ink = glyphs.astype(np.float32) / 255.0
    ink = _stroke(ink, rng.uniform(*how.thickness, len(ink)).astype(np.float32))
    ink = _warp(ink, *_coordinates(glyphs, rng, how))
    small = _reduce(ink, rng, how)
    noise = rng.uniform(0, how.noise, len(small)).astype(np.float32)[:, None, None]
    small += noise * rng.standard_normal(small.shape, dtype=np.float32)
    top = rng.uniform(how.floor, 1.15, len(small)).astype(np.float32)[:, None, None]
    gamma = np.exp(rng.uniform(-0.5, 0.5, len(small))).astype(np.float32)[:, None, None]
    shaded = top * np.clip(small, 0.0, 1.0) ** gamma
    return np.asarray(np.clip(np.rint(shaded * 255.0), 0, 255), dtype=np.uint8)


def _stroke(ink: Floats, radius: Floats) -> Floats:
    """Dilate (radius > 0) or erode (< 0) each image by a fraction of pixels; a stroke is never erased."""
    out = ink.copy()
    for sign in (1.0, -1.0):
        chosen = np.flatnonzero(sign * radius > 0)
        left = np.abs(radius[chosen])
        level = sign * ink[chosen]
        for step in range(int(np.ceil(left.max(initial=0.0)))):
            share = np.clip(left - step, 0.0, 1.0)[:, None, None]
            level += share * (_neighbourhood_maximum(level, diagonal=step % 2 == 1) - level)
        level *= sign
        kept = level.max(axis=(1, 2)) > 0.5
        kept &= level.sum(axis=(1, 2)) > 0.35 * ink[chosen].sum(axis=(1, 2))
        out[chosen[kept]] = level[kept]
    return out


def _neighbourhood_maximum(images: Floats, *, diagonal: bool) -> Floats:
    """The greatest value among a pixel and its 4 neighbours (or 8); alternating the two keeps ends round."""
    wide = images.copy()
    np.maximum(wide[:, :, 1:], images[:, :, :-1], out=wide[:, :, 1:])
    np.maximum(wide[:, :, :-1], images[:, :, 1:], out=wide[:, :, :-1])
    rows = wide if diagonal else images
    tall = wide.copy()
    np.maximum(tall[:, 1:], rows[:, :-1], out=tall[:, 1:])
    np.maximum(tall[:, :-1], rows[:, 1:], out=tall[:, :-1])
    return tall


def _coordinates(glyphs: Bytes, rng: np.random.Generator, how: Distortions) -> tuple[Floats, Floats]:
    """Where each pixel of the warped image comes from: x and y, each (N, 48, 48), in glyph pixels."""
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
    """Half the width and half the height of each glyph's ink, (N, 1, 1) each, in glyph pixels."""
    columns = (glyphs.max(axis=1) > 64).sum(axis=1)
    rows = (glyphs.max(axis=2) > 64).sum(axis=1)
    sizes = np.stack([columns, rows]).astype(np.float32)[..., None, None] / 2
    sizes = np.maximum(sizes, 2.0)
    return sizes[0], sizes[1]


def _widths(natural: Floats, rng: np.random.Generator, how: Distortions) -> Floats:
    """Ink width in heights of the ink: the glyph's own, stretched by up to a third, kept within range."""
    stretch = np.exp(rng.uniform(-0.35, 0.35, natural.shape)).astype(np.float32)
    low, high = how.aspect
    narrow = natural < 0.3  # a bare stroke such as "1" stays one
    return np.where(narrow, natural * np.maximum(stretch, 1.0), np.clip(natural * stretch, low, high))


def _smooth_field(rng: np.random.Generator, count: int, strength: float) -> Floats:
    """A smooth displacement, (2, N, 48, 48), from a 5×5 grid of control points."""
    scale = rng.uniform(0, strength, (1, count, 1, 1)).astype(np.float32)
    points = scale * rng.standard_normal((2, count, 5, 5), dtype=np.float32)
    up = _resampling(5, CANVAS, Image.Resampling.BICUBIC)
    return np.asarray(up @ points @ up.T)


def _warp(images: Floats, x: Floats, y: Floats) -> Floats:
    """Bilinear sampling of each image at (x, y); black outside."""
    count = len(images)
    padded = np.zeros((count, CANVAS + 2, CANVAS + 2), np.float32)
    padded[:, 1:-1, 1:-1] = images
    x, y = np.clip(x + 1, 0, CANVAS + 0.999), np.clip(y + 1, 0, CANVAS + 0.999)
    left, top = x.astype(np.int32), y.astype(np.int32)
    right, below = x - left, y - top
    flat = padded.reshape(-1)
    width = CANVAS + 2
    start = np.arange(count, dtype=np.int32)[:, None, None] * (width * width) + top * width + left
    upper = flat[start] * (1 - right) + flat[start + 1] * right
    lower = flat[start + width] * (1 - right) + flat[start + width + 1] * right
    return np.asarray(upper * (1 - below) + lower * below, dtype=np.float32)


def _reduce(ink: Floats, rng: np.random.Generator, how: Distortions) -> Floats:
    """Blur, sample down to a low resolution, round to few grey levels, sample up to 32 px."""
    count = len(ink)
    resolution = rng.choice(how.resolutions, count)
    blur = rng.integers(0, 8, count)
    levels = rng.choice((8.0, 16.0, 16.0, 255.0), count).astype(np.float32)
    filters = rng.choice(3, count, p=(0.6, 0.3, 0.1))
    out = np.empty((count, SIZE, SIZE), np.float32)
    for key in np.unique(np.stack([resolution, filters], axis=1), axis=0):
        chosen = np.flatnonzero((resolution == key[0]) & (filters == key[1]))
        sharp = np.stack([_blur(float(np.interp(b, (0, 7), how.blur))) for b in blur[chosen]])
        down = _area(CANVAS, int(key[0])) @ sharp
        small = down @ ink[chosen] @ down.transpose(0, 2, 1)
        grey = levels[chosen][:, None, None]
        small = np.rint(np.clip(small, 0, 1) * grey) / grey
        up = _resampling(int(key[0]), SIZE, _FILTERS[key[1]])
        out[chosen] = up @ small @ up.T
    return out


@cache
def _blur(sigma: float) -> Floats:
    """The (48, 48) matrix of a Gaussian blur along one axis."""
    position = np.arange(CANVAS, dtype=np.float32)
    if sigma < 0.1:
        return np.eye(CANVAS, dtype=np.float32)
    weights = np.exp(-0.5 * ((position[:, None] - position) / sigma) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


@cache
def _area(source: int, target: int) -> Floats:
    """The (target, source) matrix that averages the source pixels under each target pixel."""
    edges = np.arange(target + 1) * source / target
    pixel = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.asarray(np.maximum(overlap, 0) * target / source, dtype=np.float32)


@cache
def _resampling(source: int, target: int, how: Image.Resampling) -> Floats:
    """The (target, source) matrix of Pillow's own resampling filter along one axis."""
    columns = [
        np.asarray(Image.fromarray(row[:, None]).resize((1, target), how))[:, 0]
        for row in np.eye(source, dtype=np.float32)
    ]
    return np.stack(columns, axis=1)
