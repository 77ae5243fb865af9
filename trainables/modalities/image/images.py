"""Any image that Pillow opens, as one RGB array of a given size.

The image is turned as its EXIF data says, of an animation the first frame is taken, and the whole picture is
stretched to the size (as ``keras.utils.image_dataset_from_directory`` does) by an antialiased bilinear
filter.
"""

from __future__ import annotations

import io
import struct
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from trainables.errors import DataError
from trainables.rgb import to_rgb

TURNS = {
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


LONGEST_REASON = 200
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


def decode_whole(encoded: Path | bytes | memoryview) -> NDArray[np.uint8]:
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
    turn = TURNS.get(_orientation(image))
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
    words = " ".join(str(error).split())[:LONGEST_REASON]
    if isinstance(error, OSError | SyntaxError) and words:
        return words
    return f"damaged ({words or type(error).__name__})"
