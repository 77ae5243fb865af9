"""Checks, before any training, that a classifier can be trained, selected and tested on a labelled dataset."""

from __future__ import annotations

import numpy as np

from trainables.data.inputs.source import SPLITS, UNSPLIT, Listing, quoted_list
from trainables.errors import DataError

TRAIN = SPLITS.index("train")


def missing_splits(listing: Listing) -> tuple[str, ...]:
    """Return which of validation and test the data does not name; they have to be split off the training images."""
    present = set(np.unique(listing.splits).tolist())
    return tuple(split for split in SPLITS[1:] if SPLITS.index(split) not in present)


def check_labelled_listing(listing: Listing, place: str) -> None:
    """Check ``listing``, which comes from ``place`` and whose images all have a label.

    Raises:
        DataError: there are no images, fewer than two classes, nothing to train on, a class without training images,
            or a class with too few images to be split.
    """
    if not len(listing):
        raise DataError(f"{place} holds no images.")
    if len(listing.classes) < 2:
        raise DataError(
            f"{place} holds one class only, {listing.classes[0]!r}: expected at least two to tell apart."
        )
    _refuse_untrained(listing, place)
    _refuse_small(listing, place)


def _refuse_untrained(listing: Listing, place: str) -> None:
    """Require training images of every class."""
    train = listing.per_class(TRAIN) + listing.per_class(UNSPLIT)
    if not train.any():
        raise DataError(f"{place} holds no train split: expected images to train on.")
    for split in SPLITS[1:]:
        strange = np.flatnonzero((listing.per_class(SPLITS.index(split)) > 0) & (train == 0))
        if len(strange):
            names = quoted_list([listing.classes[label] for label in strange])
            raise DataError(
                f"{place}: {split} holds images of {names}, but train doesn't. "
                f"Add some to train, or remove them from {split}."
            )
    absent = np.flatnonzero(train == 0)
    if len(absent):
        raise DataError(
            f"{place}: no image of {quoted_list([listing.classes[label] for label in absent])} can be read."
        )


def _refuse_small(listing: Listing, place: str) -> None:
    """Require enough images of every class for each split that has to be made."""
    missing = missing_splits(listing)
    counts = listing.per_class(TRAIN) + listing.per_class(UNSPLIT)
    needed = 1 + len(missing)
    small = [f"{listing.classes[label]} ({counts[label]})" for label in np.flatnonzero(counts < needed)]
    if small:
        raise DataError(
            f"{place}: {len(small)} of {len(counts)} classes have too few images to split off "
            f"{' and '.join(missing)}: expected at least {needed} a class, received {quoted_list(small)}. "
            "Add images, remove these classes, or split the data yourself."
        )
