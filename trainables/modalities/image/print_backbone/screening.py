"""Finds the fonts that draw something else than expected: dingbats, Greek symbols, letters in boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ENOUGH_FONTS = 20
"""Smallest number of fonts among which an unusual one can be recognised."""


def select_usual_glyphs(
    images: NDArray[np.uint8], labels: NDArray[np.int64], owners: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which glyphs (N,) belong to fonts that draw what other fonts draw.

    A font passes if at least an eighth of its glyphs, and of its letters, are nearest to the mean glyph of their own
    class. Glyphs are compared at 8×8 pixels and regardless of brightness, so that thin fonts pass.

    Args:
        images: (N, S, S) uint8 glyphs; S is a multiple of 8.
        labels: (N,) classes; from 10 on they are letters.
        owners: (N,) number of the font of each glyph.
    """
    passed = np.ones(len(labels), np.bool_)
    if len(np.unique(owners)) < ENOUGH_FONTS:
        return passed
    side = images.shape[1] // 8
    flat = images.reshape(-1, 8, side, 8, side).mean(axis=(2, 4)).reshape(len(images), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6
    present = np.unique(labels)
    means = np.stack([flat[labels == label].mean(axis=0) for label in present])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    right = present[(flat @ means.T).argmax(axis=1)] == labels
    for owner in np.unique(owners):
        mine = owners == owner
        letters = right[mine & (labels >= 10)]
        passed[mine] = right[mine].mean() >= 1 / 8 and (not letters.size or letters.mean() >= 1 / 8)
    return passed
