"""Augments images: one recipe of geometric distortions, scaled by a single strength.

A strength s in [0, 1] means rotation by up to ±40°·s, shifts by up to ±0.2·s of width and height, shear by up to ±0.2·s
and zoom by up to ±0.2·s; empty corners are filled with the nearest pixel. A horizontal flip is a separate option. The
random numbers are drawn on the host from (seed, epoch), one row per image, so they depend neither on the order of the
batches nor on other trials.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

DRAWS_PER_IMAGE = 7
"""Number of random numbers per image: rotation, shift x, shift y, shear, zoom x, zoom y, flip; each in [-1, 1)."""

ROTATION = math.radians(40.0)
SHIFT = 0.2
SHEAR = 0.2
ZOOM = 0.2


def draw(count: int, *key: int) -> np.ndarray:
    """Draw the random numbers of ``count`` images, a function of ``key``.

    Returns:
        (count, DRAWS_PER_IMAGE) float32 in [-1, 1).
    """
    # The constant keeps these draws apart from those of other code with the same key, such as the order of the data.
    generator = np.random.default_rng([*key, 0xA06])
    return generator.uniform(-1.0, 1.0, size=(count, DRAWS_PER_IMAGE)).astype(np.float32)


def distort(images: Any, draws: Any, strength: Any, flip: Any) -> Any:
    """Distort ``images`` (B, H, W, 3) float32 by ``draws`` (B, DRAWS).

    Args:
        images: pixel values, any range.
        draws: the output of :func:`draw` for these images.
        strength: scalar in [0, 1]; 0 leaves every pixel as it is.
        flip: scalar 0 or 1; with 1 half of the images are mirrored left to right.

    Returns:
        (B, H, W, 3) float32.
    """
    height, width = images.shape[1], images.shape[2]
    matrix = affine_transforms(draws, strength, flip, height, width)
    return keras.ops.image.affine_transform(
        images, matrix, interpolation="bilinear", fill_mode="nearest", data_format="channels_last"
    )


def affine_transforms(draws: Any, strength: Any, flip: Any, height: int, width: int) -> Any:
    """Return affine maps (B, 8) from output to input pixel coordinates about the centre of the image."""
    ops = keras.ops
    angle = draws[:, 0] * (ROTATION * strength)
    shift_x = draws[:, 1] * (SHIFT * width * strength)
    shift_y = draws[:, 2] * (SHIFT * height * strength)
    shear = draws[:, 3] * (SHEAR * strength)
    zoom_x = 1.0 + draws[:, 4] * (ZOOM * strength)
    zoom_y = 1.0 + draws[:, 5] * (ZOOM * strength)
    # With `flip` 1 the negative draws mirror, which are half of them; with 0 the product is never below the bound.
    mirror = ops.where(draws[:, 6] * flip < -1e-9, -1.0, 1.0)
    cos, sin = ops.cos(angle), ops.sin(angle)
    # The product of the matrices of rotation, shear, zoom and mirror, written out.
    a0 = cos * zoom_x * mirror
    a1 = (cos * shear - sin) * zoom_y
    b0 = sin * zoom_x * mirror
    b1 = (sin * shear + cos) * zoom_y
    centre_x, centre_y = (width - 1) / 2.0, (height - 1) / 2.0
    a2 = centre_x + shift_x - a0 * centre_x - a1 * centre_y
    b2 = centre_y + shift_y - b0 * centre_x - b1 * centre_y
    zero = ops.zeros_like(a0)
    return ops.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)
