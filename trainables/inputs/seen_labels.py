"""Which labels of a target are read where no trial may see those of its training and validation images."""

from __future__ import annotations

from collections.abc import Collection

from trainables.data.inputs.source import SPLITS, UNSPLIT

TRAIN, TEST = SPLITS.index("train"), SPLITS.index("test")

HINT = "With --unlabelled-target (unlabelled_target) only test images of the target need a label."


def splits_with_labels(splits: Collection[int]) -> frozenset[int]:
    """Indices of the splits whose labels are read, of an input that names ``splits``.

    These are the test's; or, where the test has yet to be split off, those of the images that it may be drawn from.
    """
    return frozenset({TEST}) if TEST in splits else frozenset({UNSPLIT, TRAIN})
