"""Renders printed characters: glyphs drawn from font files.

A glyph is drawn once per font and character, cropped to its ink and fitted into a square canvas. This removes size,
position and line height on purpose, and with them the difference between ``c`` and ``C`` or ``0`` and ``O``. Characters
that differ only in size therefore share one class, and letters that look like a digit (``O``, ``o``, ``I``, ``l``) are
left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from trainables.errors import DataError
from trainables.modalities.image.print_backbone.screening import select_usual_glyphs

Bytes = NDArray[np.uint8]

CANVAS = 48
"""Height and width of a glyph's canvas, in pixels."""
INK = 40
"""The longer side of a glyph's ink on its canvas, in pixels."""

CLASSES: tuple[str, ...] = (
    *"0123456789",
    *("A", "B", "Cc", "D", "E", "F", "G", "H", "Jj", "Kk", "L", "Mm", "N", "Pp", "Q", "R", "Ss", "T"),
    *("Uu", "Vv", "Ww", "Xx", "Yy", "Zz"),
    *"abdefghinqrt",
)
"""The classes of the pretraining; each string contains the characters of one class."""


@dataclass(frozen=True)
class Glyphs:
    """Rendered glyphs.

    Attributes:
        images: (N, 48, 48) uint8, white ink (255) on black (0).
        labels: (N,) int64, index into :data:`CLASSES`.
        families: (N,) int64, index into ``names``.
        names: names of the font families.
        digest: hexadecimal SHA-256 over pixels, labels and families, 16 digits.
    """

    images: Bytes
    labels: NDArray[np.int64]
    families: NDArray[np.int64]
    names: tuple[str, ...]
    digest: str


def render_glyph(font: Path, character: str) -> Bytes | None:
    """Draw ``character`` in ``font`` as a (48, 48) uint8 image, white on black; None if the font draws nothing.

    Raises:
        DataError: ``font`` is not a readable font file.
    """
    return _draw(_open(font), character)


def render_glyphs(fonts: Sequence[Path], *, progress: Callable[[int, int], None] | None = None) -> Glyphs:
    """Draw every character of :data:`CLASSES` in every font.

    A font is left out if it lacks a digit or draws two digits alike, or, among enough fonts, if its glyphs look like
    other characters (dingbats, Greek symbols, letters in boxes).

    Args:
        fonts: font files.
        progress: called with the number of finished fonts and of all fonts.

    Raises:
        DataError: a file is not a readable font, or no font can draw the digits.
    """
    images: list[Bytes] = []
    labels: list[int] = []
    owners: list[int] = []
    families: list[str] = []
    for number, font in enumerate(fonts):
        face = _open(font)
        drawn = _draw_all(face)
        images += [image for _, image in drawn]
        labels += [label for label, _ in drawn]
        owners += [number] * len(drawn)
        families.append(_family(face))
        if progress is not None:
            progress(number + 1, len(fonts))
    if not images:
        raise DataError(
            f"fonts: expected a font that can draw the digits 0 to 9, got {len(fonts)} that can't"
        )
    pixels, classes, owner = np.stack(images), np.array(labels, np.int64), np.array(owners, np.int64)
    kept = select_usual_glyphs(pixels, classes, owner)
    return _packed(pixels[kept], classes[kept], [families[number] for number in owner[kept]])


def _packed(images: Bytes, labels: NDArray[np.int64], families: list[str]) -> Glyphs:
    names, numbers = np.unique(families, return_inverse=True)
    digest = hashlib.sha256()
    for part in (images, labels, numbers):
        digest.update(np.ascontiguousarray(part).tobytes())
    return Glyphs(images, labels, numbers.astype(np.int64), tuple(map(str, names)), digest.hexdigest()[:16])


def _draw_all(face: ImageFont.FreeTypeFont) -> list[tuple[int, Bytes]]:
    """Return (class, image) of every character; empty if the font can't draw ten different digits."""
    # The last code point of a private plane: fonts draw their placeholder for missing characters there.
    missing = _draw(face, "\U0010fffd")
    drawn = [
        (label, image)
        for label, character in _characters()
        if (image := _draw(face, character)) is not None
        and (missing is None or not np.array_equal(image, missing))
    ]
    digits = [image.tobytes() for label, image in drawn if label < 10]
    return drawn if len(digits) == len(set(digits)) == 10 else []


def _characters() -> Iterator[tuple[int, str]]:
    for label, characters in enumerate(CLASSES):
        for character in characters:
            yield label, character


def _draw(face: ImageFont.FreeTypeFont, character: str) -> Bytes | None:
    left, top, right, bottom = (int(edge) for edge in face.getbbox(character))
    if min(right - left, bottom - top) < 3:
        return None
    page = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(page).text((2 - left, 2 - top), character, font=face, fill=255)
    box = page.getbbox()
    if box is None:
        return None
    ink = page.crop(box)
    scale = INK / max(ink.size)
    size = (max(1, round(ink.width * scale)), max(1, round(ink.height * scale)))
    canvas = Image.new("L", (CANVAS, CANVAS))
    corner = ((CANVAS - size[0]) // 2, (CANVAS - size[1]) // 2)
    canvas.paste(ink.resize(size, Image.Resampling.BICUBIC), corner)
    return np.array(canvas, dtype=np.uint8)


def _open(font: Path) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(str(font), size=64)
    except OSError as error:
        raise DataError(f"font: expected a font file, got {str(font)!r} ({error})") from error


def _family(face: ImageFont.FreeTypeFont) -> str:
    """Return the font family without its optical size (``Latin Modern Roman 10`` → ``latin modern roman``)."""
    name = (face.getname()[0] or "unnamed").lower()
    return name.rstrip("0123456789 ") or name
