"""Refuses data that no classifier can be trained, chosen and tested on, before hours go into it."""

from __future__ import annotations

import numpy as np

from trainables.data.inputs.source import SPLITS, UNSPLIT, Listing, quoted_list
from trainables.errors import DataError

TRAIN = SPLITS.index("train")


def missing_splits(listing: Listing) -> tuple[str, ...]:
    """Of validation and test those that no image is in: they have to be split off here."""
    present = set(np.unique(listing.splits).tolist())
    return tuple(split for split in SPLITS[1:] if SPLITS.index(split) not in present)


def check_labelled_listing(listing: Listing, place: str) -> None:
    """Check an input as listed, or what is left of it without bad images.

    Raises:
        DataError: no images, fewer than two classes, none to train on, a class that train lacks, or too few
            of a class to be split.
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
    """Every class needs images to train on."""
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
    """A class that is split here must reach every split."""
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
