"""The strengths of the distortions that the pretraining uses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Distortions:
    """The strength of each distortion. A pair is the range from which each image's value is drawn."""

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


STANDARD = Distortions()
"""The strengths that the shipped weights were trained with."""
