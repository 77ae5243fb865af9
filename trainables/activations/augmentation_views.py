"""Quantises augmentation so that trials can share it: a few strengths, and a few keyed views of each.

A view is one fixed draw of distortions for every image, a function of (strength, flip, view) alone. Its activations are
computed once and read by every trial on the machine. A trial sees the same images whether they are read or computed.
"""

from __future__ import annotations

import numpy as np

from trainables.errors import UsageError
from trainables.modalities.image.augment import draw

STRENGTH_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Strengths for which views exist."""

# Part of the seed of every view. With another value all views change, so ENTRY_FORMAT has to increase as well.
_KEY = 0x71E35


def nearest_level(strength: float) -> float:
    """Return the level nearest to ``strength``; of two equally near levels the lower one.

    Raises:
        UsageError: ``strength`` is not between 0 and 1.
    """
    if not 0.0 <= strength <= 1.0:
        raise UsageError(f"augmentation_strength: expected 0 to 1, received {strength!r}")
    return min(STRENGTH_LEVELS, key=lambda level: (abs(level - strength), level))


def view_for_epoch(epoch: int, views: int) -> int:
    """Return the view (from 0) of ``epoch`` (from 1), one of ``views``.

    It is the same for every seed, so that trials which a scheduler stops early all need the same first views.
    """
    return (epoch - 1) % views


def view_draws(count: int, level: float, flip: bool, view: int) -> np.ndarray:
    """Random numbers (count, DRAWS) float32 of one view of ``count`` images, for
    :func:`trainables.modalities.image.augment.distort`.
    """
    # Keys are integers, and the levels are multiples of a quarter.
    return draw(count, _KEY, round(level * 4), int(flip), view)
