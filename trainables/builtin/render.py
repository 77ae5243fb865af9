"""Printed characters as images: glyphs drawn from font files.

A glyph is drawn once per font and character, cropped to its ink and fitted into a square canvas.
Size, position and line height are thereby lost on purpose, and with them the difference between
``c`` and ``C`` or ``0`` and ``O``: characters that only size tells apart share one class, and letters
that look like a digit (``O``, ``o``, ``I``, ``l``) are left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from trainables.errors import DataError

Bytes = NDArray[np.uint8]

CANVAS = 48
"""Side of a glyph's canvas, pixels."""
INK = 40
"""The longer side of a glyph's ink on its canvas, pixels."""

CLASSES: tuple[str, ...] = (
    *"0123456789",
    *("A", "B", "Cc", "D", "E", "F", "G", "H", "Jj", "Kk", "L", "Mm", "N", "Pp", "Q", "R", "Ss", "T"),
    *("Uu", "Vv", "Ww", "Xx", "Yy", "Zz"),
    *"abdefghinqrt",
)
"""The classes of the pretraining; each string holds the characters that one class may show."""


@dataclass(frozen=True)
class Glyphs:
    """Rendered glyphs.

    Attributes:
        images: (N, 48, 48) uint8, white ink (255) on black (0).
        labels: (N,) int64, index into :data:`CLASSES`.
        families: (N,) int64, index into ``names``: which typeface family a glyph came from.
        names: the families.
        digest: hex, over pixels, labels and families.
    """

    images: Bytes
    labels: NDArray[np.int64]
    families: NDArray[np.int64]
    names: tuple[str, ...]
    digest: str


def render_glyph(font: Path, character: str) -> Bytes | None:
    """``character`` in ``font`` as a (48, 48) uint8 image, white on black; None if the font draws nothing.

    Raises:
        DataError: ``font`` can't be opened as a font.
    """
    try:
        face = ImageFont.truetype(str(font), size=64)
    except OSError as error:
        raise DataError(f"font: expected a font file, got {str(font)!r} ({error})") from error
    return _draw(face, character)


def render_glyphs(fonts: Sequence[Path], *, progress: Callable[[int, int], None] | None = None) -> Glyphs:
    """Every character of :data:`CLASSES` in every font that can draw it.

    A font that lacks any digit, or that draws two digits alike (symbol fonts, fonts with a box for what
    they lack), is left out whole.

    Raises:
        DataError: a font can't be opened, or none of them can draw the digits.
    """
    images: list[Bytes] = []
    labels: list[int] = []
    families: list[str] = []
    for number, font in enumerate(fonts):
        drawn = _draw_all(font)
        images += [image for _, image in drawn]
        labels += [label for label, _ in drawn]
        families += [_family(font)] * len(drawn)
        if progress is not None:
            progress(number + 1, len(fonts))
    if not images:
        raise DataError(
            f"fonts: expected a font that can draw the digits 0 to 9, got {len(fonts)} that can't"
        )
    names = tuple(sorted(set(families)))
    index = {name: position for position, name in enumerate(names)}
    return _packed(np.stack(images), np.array(labels), np.array([index[name] for name in families]), names)


def _packed(
    images: Bytes, labels: NDArray[np.int64], families: NDArray[np.int64], names: tuple[str, ...]
) -> Glyphs:
    digest = hashlib.sha256()
    for part in (images, labels, families):
        digest.update(np.ascontiguousarray(part).tobytes())
    return Glyphs(images, labels, families, names, digest.hexdigest()[:16])


def _draw_all(font: Path) -> list[tuple[int, Bytes]]:
    try:
        face = ImageFont.truetype(str(font), size=64)
    except OSError as error:
        raise DataError(f"font: expected a font file, got {str(font)!r} ({error})") from error
    missing = _draw(face, "\U0010fffd")
    drawn: list[tuple[int, Bytes]] = []
    for label, characters in enumerate(CLASSES):
        for character in characters:
            image = _draw(face, character)
            if image is not None and (missing is None or not np.array_equal(image, missing)):
                drawn.append((label, image))
    digits = [image for label, image in drawn if label < 10]
    distinct = len({image.tobytes() for image in digits})
    return drawn if distinct == 10 and len(digits) == 10 else []


def _draw(face: ImageFont.FreeTypeFont, character: str) -> Bytes | None:
    try:
        left, top, right, bottom = (int(edge) for edge in face.getbbox(character))
    except (OSError, ValueError):
        return None
    width, height = right - left, bottom - top
    if width < 3 or height < 3:
        return None
    page = Image.new("L", (width + 4, height + 4))
    ImageDraw.Draw(page).text((2 - left, 2 - top), character, font=face, fill=255)
    box = page.getbbox()
    if box is None:
        return None
    ink = page.crop(box)
    scale = INK / max(ink.size)
    size = (max(1, round(ink.width * scale)), max(1, round(ink.height * scale)))
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(
        ink.resize(size, Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BICUBIC),
        ((CANVAS - size[0]) // 2, (CANVAS - size[1]) // 2),
    )
    return np.asarray(canvas, dtype=np.uint8)


def _family(font: Path) -> str:
    """The typeface family by file name: what precedes the style (``Lato-BoldItalic`` → ``lato``)."""
    stem = re.split(r"[-_]", font.stem)[0].lower()
    return re.sub(r"[\d\W]+$", "", stem) or font.stem.lower()
