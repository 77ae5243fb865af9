"""Distorts clean glyphs as a pen, a scanner and a small sensor would.

The steps are, in this order: stroke width (dilation or erosion), affine and elastic warp (which may also crop), blur
and a resolution down to 8 pixels with few grey levels, enlargement to 32 pixels, noise, contrast. All steps are NumPy
operations on a whole batch; resampling and blur are matrices applied to rows and columns.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from trainables.modalities.image.print_backbone.distortions import STANDARD, Distortions
from trainables.modalities.image.print_backbone.render import CANVAS, Bytes
from trainables.modalities.image.print_backbone.resample import Floats, area, gaussian, resampling
from trainables.modalities.image.print_backbone.warp import coordinates, warp

SIZE = 32
"""Height and width of a finished image, in pixels."""
_FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.NEAREST)


def distort(glyphs: Bytes, rng: np.random.Generator, how: Distortions = STANDARD) -> Bytes:
    """Distort glyphs (N, 48, 48) uint8 to images (N, 32, 32) uint8, white on black.

    The same state of ``rng`` gives the same images.
    """
    ink = glyphs.astype(np.float32) / 255.0
    ink = _stroke(ink, rng.uniform(*how.thickness, len(ink)).astype(np.float32))
    ink = warp(ink, *coordinates(glyphs, rng, how))
    small = _reduce(ink, rng, how)
    noise = rng.uniform(0, how.noise, len(small)).astype(np.float32)[:, None, None]
    small += noise * rng.standard_normal(small.shape, dtype=np.float32)
    top = rng.uniform(how.floor, 1.15, len(small)).astype(np.float32)[:, None, None]
    gamma = np.exp(rng.uniform(-0.5, 0.5, len(small))).astype(np.float32)[:, None, None]
    shaded = top * np.clip(small, 0.0, 1.0) ** gamma
    return np.asarray(np.clip(np.rint(shaded * 255.0), 0, 255), dtype=np.uint8)


def _stroke(ink: Floats, radius: Floats) -> Floats:
    """Dilate (radius > 0) or erode (radius < 0) each image by fractions of pixels.

    An image of which too little ink would remain is left as it is, so that no stroke disappears.
    """
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
    """Return the maximum of each pixel and its 4 neighbours, or 8 with ``diagonal``; alternating keeps ends round."""
    wide = images.copy()
    np.maximum(wide[:, :, 1:], images[:, :, :-1], out=wide[:, :, 1:])
    np.maximum(wide[:, :, :-1], images[:, :, 1:], out=wide[:, :, :-1])
    rows = wide if diagonal else images
    tall = wide.copy()
    np.maximum(tall[:, 1:], rows[:, :-1], out=tall[:, 1:])
    np.maximum(tall[:, :-1], rows[:, 1:], out=tall[:, :-1])
    return tall


def _reduce(ink: Floats, rng: np.random.Generator, how: Distortions) -> Floats:
    """Blur, reduce to a low resolution, round to few grey levels, and enlarge to 32 pixels."""
    count = len(ink)
    resolution = rng.choice(how.resolutions, count)
    blur = rng.integers(0, 8, count)
    levels = rng.choice((8.0, 16.0, 16.0, 255.0), count).astype(np.float32)
    filters = rng.choice(3, count, p=(0.6, 0.3, 0.1))
    out = np.empty((count, SIZE, SIZE), np.float32)
    for key in np.unique(np.stack([resolution, filters], axis=1), axis=0):
        chosen = np.flatnonzero((resolution == key[0]) & (filters == key[1]))
        sharp = np.stack([gaussian(CANVAS, float(np.interp(b, (0, 7), how.blur))) for b in blur[chosen]])
        down = area(CANVAS, int(key[0])) @ sharp
        small = down @ ink[chosen] @ down.transpose(0, 2, 1)
        grey = levels[chosen][:, None, None]
        small = np.rint(np.clip(small, 0, 1) * grey) / grey
        up = resampling(int(key[0]), SIZE, _FILTERS[key[1]])
        out[chosen] = up @ small @ up.T
    return out
