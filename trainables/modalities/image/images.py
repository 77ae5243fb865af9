"""Decodes any image that Pillow opens to one RGB array of a given size.

The image is rotated according to its EXIF data, the first frame of an animation is used, and the whole picture is
stretched to the size by an antialiased bilinear filter, as ``keras.utils.image_dataset_from_directory`` does.

Transparent images are drawn on white, as a viewer shows them. Values of more than 8 bits are scaled down, never
clipped: 16-bit integers from 0..65535; 32-bit integers and floats from the narrowest of 0..1 (floats only), 0..255
and 0..65535 that contains the whole image, or from the image's own range if none does.
"""

from __future__ import annotations

import io
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from trainables.errors import DataError

WHITE = (255, 255, 255, 255)
"""RGBA of the background that transparent images are drawn on."""

ORIENTATION_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that undoes each EXIF orientation."""

OVERSAMPLING = 2
"""A JPEG may be decoded at a lower resolution, which is faster, but never below this multiple of the requested size."""


MAX_REASON_LENGTH = 200
"""Characters of a decoder's own message that an error quotes."""


def decode_image(encoded: Path | bytes | memoryview, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode one image and resize it to ``size``.

    Args:
        encoded: an image file, or its content.
        size: (H, W) in pixels.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: the image can't be read. The message is the reason without the image's name, which the caller adds.
    """
    height, width = size
    try:
        with _opened(encoded) as image:
            _refuse_bomb(image)
            image.draft(None, (OVERSAMPLING * max(size), OVERSAMPLING * max(size)))
            upright = _upright(image)
            # With a gap of 3 Pillow first shrinks by a whole factor, which is faster; its documentation
            # describes the result as indistinguishable from plain resampling in most cases.
            small = upright.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
    except DataError:
        raise
    except Exception as error:  # a decoder that is fed arbitrary bytes may raise anything
        raise DataError(_reason(error, encoded)) from error
    return np.asarray(small)


def decode_full_size(encoded: Path | bytes | memoryview) -> NDArray[np.uint8]:
    """Decode one image at its own size: (H, W, 3) uint8, RGB. See :func:`decode_image`."""
    try:
        with _opened(encoded) as image:
            _refuse_bomb(image)
            return np.array(_upright(image))
    except DataError:
        raise
    except Exception as error:  # as above
        raise DataError(_reason(error, encoded)) from error


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats to try, common ones first.

    EPS is excluded: Ghostscript would run it as a program, and datasets are not trusted.
    """
    Image.preinit()
    common = list(Image.ID)
    Image.init()
    return tuple(name for name in dict.fromkeys([*common, *Image.ID]) if name != "EPS")


def _opened(encoded: Path | bytes | memoryview) -> Image.Image:
    if isinstance(encoded, Path) and encoded.exists() and not encoded.is_file():
        raise DataError("not a file")  # a pipe or a device may never end
    file = encoded if isinstance(encoded, Path) else io.BytesIO(encoded)
    return Image.open(file, formats=_formats())


def _refuse_bomb(image: Image.Image) -> None:
    """Raise for images above Pillow's pixel limit, where Pillow itself only warns up to twice the limit."""
    pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > limit:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    turn = ORIENTATION_TRANSPOSES.get(_orientation(image))
    rgb = to_rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return 1  # a damaged EXIF block does not affect the pixels


def _reason(error: Exception, encoded: Path | bytes | memoryview) -> str:
    if isinstance(error, UnidentifiedImageError):
        size = encoded.stat().st_size if isinstance(encoded, Path) else len(encoded)
        return "not in an image format that Pillow reads" if size else "the file is empty (0 bytes)"
    if isinstance(error, Image.DecompressionBombError):
        return f"too many pixels to be decoded safely (more than {Image.MAX_IMAGE_PIXELS:,}): {error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    words = " ".join(str(error).split())[:MAX_REASON_LENGTH]
    if isinstance(error, OSError | SyntaxError) and words:
        return words
    return f"damaged ({words or type(error).__name__})"


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an opened image to mode RGB.

    Raises:
        DataError: some pixels are NaN or infinite.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return Image.fromarray(_deep(image)).convert("RGB")
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, WHITE)
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB")
    return image.convert("RGB")


def _deep(image: Image.Image) -> NDArray[np.uint8]:
    """Convert a single-channel image with more than 8 bits to (H, W) uint8."""
    values = np.asarray(image)
    grey = to_eight_bit(values)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey = np.where(values == clear, np.uint8(255), grey)
    return grey


def to_eight_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale ``values`` of any shape and numeric type to 0..255.

    Raises:
        DataError: some values are NaN or infinite.
    """
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        # Exact rounding of x * 255 / 65535 in integers, with half of the memory that floats would take.
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
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
