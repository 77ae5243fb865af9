"""Any image that Pillow opens, as one RGB array of a given size.

The image is turned as its EXIF data says, of an animation the first frame is taken, and the whole picture is
stretched to the size (as ``keras.utils.image_dataset_from_directory`` does) by an antialiased bilinear
filter.

Any Pillow mode as 8-bit RGB.

Transparency is laid on white, which is what a viewer shows. Values of more than 8 bits are scaled down, never
clipped: 16-bit ones from 0..65535; 32-bit integers and floats from the narrowest of 0..1 (floats alone),
0..255 and 0..65535 that holds the whole image, and from the image's own range where none does.
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
    grey = to_eight_bit(values)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey = np.where(values == clear, np.uint8(255), grey)
    return grey


def to_eight_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
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


ORIENTATION_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""

OVERSAMPLING = 2
"""A JPEG may be decoded at a lower resolution, but never below this multiple of the size asked for."""


MAX_REASON_LENGTH = 200
"""Letters of a decoder's own words."""


def decode_image(encoded: Path | bytes | memoryview, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode one image and resize it.

    Args:
        encoded: an image file, or its content.
        size: (H, W) in pixels.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: it can't be read; the text is the reason alone, without the image's name.
    """
    height, width = size
    try:
        with _opened(encoded) as image:
            _refuse_bomb(image)
            image.draft(None, (OVERSAMPLING * max(size), OVERSAMPLING * max(size)))
            upright = _upright(image)
            small = upright.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
    except DataError:
        raise
    except Exception as error:  # a decoder that is fed arbitrary bytes may raise anything
        raise DataError(_reason(error, encoded)) from error
    return np.asarray(small)


def decode_full_size(encoded: Path | bytes | memoryview) -> NDArray[np.uint8]:
    """:func:`decode_image` at the image's own size: (H, W, 3) uint8, RGB."""
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
    """Formats to try, common ones first. EPS is a program that Ghostscript would run: not from a dataset."""
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
    """Pillow itself only warns up to twice its limit."""
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
        return 1  # a damaged EXIF block says nothing about the pixels


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
