"""Tell the fonts that draw something else: dingbats, Greek symbols, letters in boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ENOUGH_FONTS = 20
"""From how many fonts on an odd one among them can be told."""


def select_usual_glyphs(
    images: NDArray[np.uint8], labels: NDArray[np.int64], owners: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which glyphs belong to fonts that draw what other fonts draw: (N,) bool.

    A font passes when an eighth of its glyphs, and of its letters, lie nearest to their own class's mean
    glyph; the comparison is coarse (8×8) and blind to brightness, so that thin fonts pass.
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
