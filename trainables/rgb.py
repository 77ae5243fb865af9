"""Any Pillow mode as 8-bit RGB.

Transparency is laid on white, which is what a viewer shows. Values of more than 8 bits are scaled down, never
clipped: 16-bit ones from 0..65535; 32-bit integers and floats from the narrowest of 0..1 (floats alone),
0..255 and 0..65535 that holds the whole image, and from the image's own range where none does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainables.errors import DataError

WHITE = (255, 255, 255, 255)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an opened image to mode RGB.

    Raises:
        DataError: pixels that are NaN or infinite.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return Image.fromarray(_deep(image)).convert("RGB")
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, WHITE)
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB")
    return image.convert("RGB")


def _deep(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W) of a single-channel image with more than 8 bits."""
    values = np.asarray(image)
    grey = eight_bit(values)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey = np.where(values == clear, np.uint8(255), grey)
    return grey


def eight_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale ``values`` (any shape, any number type) to 0..255."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return ((values.astype(np.uint32) + 128) // 257).astype(
            np.uint8
        )  # exact, in half of a float's memory
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise DataError("some pixels are NaN or infinite")
    ceilings = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    for ceiling in ceilings:
        if low >= 0 and high <= ceiling:
            return _scaled(values, 0.0, ceiling)
    return _scaled(values, low, high)


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    share = (values.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny)
    return np.asarray(np.rint(share * 255.0), dtype=np.uint8)
