"""Rendered characters and words in the fonts that matplotlib ships, far from the photographs of ImageNet."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.probe_tasks.package_images import Example

SIZE = 96
"""Side of a rendered image, in pixels."""

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmb10", "cmr10", "cmss10", "cmti10", "cmtt10"),
)

LOWER_CASE_LIKE_UPPER_CASE = "cosvwxz"
"""Lower-case letters that differ from the upper-case ones in nothing but size, which is random here."""

PER_CHARACTER, PER_FONT = 20, 50


def characters(downloads: Path) -> list[Example]:
    """Rotated letters and digits in many fonts and colours, on noise: 55 labels with 20 images each."""
    generator = np.random.default_rng(0)
    lower = [c for c in string.ascii_lowercase if c not in LOWER_CASE_LIKE_UPPER_CASE]
    names = {
        **{c: f"upper-{c}" for c in string.ascii_uppercase},
        **{c: f"lower-{c}" for c in lower},
        **{c: f"digit-{c}" for c in string.digits},
    }
    return [
        (label, _render(character, str(generator.choice(FONTS)), generator, (40, 72), 25.0))
        for character, label in names.items()
        for _ in range(PER_CHARACTER)
    ]


def fonts(downloads: Path) -> list[Example]:
    """Random letters whose font is the label: 21 styles of six families, 50 images of each."""
    generator = np.random.default_rng(1)
    letters = list(string.ascii_letters)
    return [
        (font, _render("".join(generator.choice(letters, 4)), font, generator, (24, 30), 5.0))
        for font in FONTS
        for _ in range(PER_FONT)
    ]


def _render(
    text: str, font: str, generator: np.random.Generator, sizes: tuple[int, int], degrees: float
) -> Image.Image:
    """Draw ``text`` near the centre, rotate it by at most ``degrees``, and add noise."""
    drawn = ImageFont.truetype(str(_font_folder() / f"{font}.ttf"), int(generator.integers(*sizes)))
    mask = Image.new("L", (SIZE, SIZE))
    place = tuple(SIZE / 2 + generator.uniform(-6, 6, 2))
    ImageDraw.Draw(mask).text(place, text, fill=255, font=drawn, anchor="mm")
    mask = mask.rotate(float(generator.uniform(-degrees, degrees)), Image.Resampling.BICUBIC)
    mask = mask.filter(ImageFilter.GaussianBlur(float(generator.uniform(0, 1.2))))
    ink, paper = _colours(generator)
    share = np.asarray(mask, np.float64)[..., None] / 255
    pixels = share * ink + (1 - share) * paper + generator.normal(0, 12, (SIZE, SIZE, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _colours(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two colours that differ enough in brightness to read the text."""
    while True:
        ink, paper = generator.uniform(0, 255, (2, 3))
        if abs(ink.mean() - paper.mean()) > 70:
            return ink, paper


def _font_folder() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"
