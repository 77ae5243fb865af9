"""Splits, classes and tasks of a target dataset whose training and validation labels must not be used.

Only the test split needs labels. Which images it gets depends on their keys and the seed alone, like the validation
split. The classes are those of the source, followed by the other classes of the test images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from trainables.data.checks import TRAIN, missing_splits
from trainables.data.class_names import shared_classes
from trainables.data.inputs.options import DataOptions
from trainables.data.inputs.source import NO_LABEL, TEST, UNSPLIT, Listing, quoted_list, splits_with_labels
from trainables.data.split_file import Split
from trainables.data.splits import split_bounds
from trainables.data.task import Task
from trainables.errors import DataError

HIDDEN_LABEL = NO_LABEL
"""The value that replaces every label."""


@dataclass(frozen=True)
class UnlabelledTask(Task):
    """A task whose splits have no labels. The test labels are read from the plain :class:`Task` of the same folder."""

    @classmethod
    def of(cls, task: Task) -> UnlabelledTask:
        """Return ``task`` without its labels."""
        return cls(**{f.name: getattr(task, f.name) for f in fields(task)})

    def split(self, name: str) -> Split:
        """Map a split whose labels are all :data:`HIDDEN_LABEL`."""
        split = super().split(name)
        return replace(split, labels=np.full(len(split), HIDDEN_LABEL, np.int64))


def check_unlabelled_listing(listing: Listing, place: str, known: tuple[str, ...]) -> None:
    """Check ``listing``, which comes from ``place``; only its test images need labels.

    Args:
        listing: examples of a source, all of them or those that can be read.
        place: where they come from, for messages.
        known: the classes of the source dataset.

    Raises:
        DataError: no test image has a label, there is nothing to train on, too little to be split, or one class only.
        UsageError: source and test have no class in common.
    """
    if not len(listing):
        raise DataError(f"{place} holds no images.")
    pool = (listing.splits == TRAIN) | (listing.splits == UNSPLIT)
    if not pool.any():
        raise DataError(f"{place} holds no train split: expected images to train on.")
    testable = np.isin(listing.splits, sorted(splits_with_labels(listing.splits.tolist())))
    labels = listing.labels[testable & (listing.labels != NO_LABEL)]
    if not len(labels):
        raise DataError(
            f"{place}: none of {int(testable.sum()):,} images for the test has a label. With --unlabelled-target "
            "(unlabelled_target) no label of training and validation is read, but the winner is measured once, on test "
            "images with labels. Put some into DIR/test/CLASS/image.jpg, or into rows whose split is test."
        )
    missing = missing_splits(listing)
    if pool.sum() < 1 + len(missing):
        raise DataError(
            f"{place}: expected at least {1 + len(missing)} images to split off {' and '.join(missing)}, "
            f"received {int(pool.sum())}."
        )
    _classes({listing.classes[label] for label in np.unique(labels)}, known, place)


def assign_unlabelled(listing: Listing, keys: NDArray[np.uint8], options: DataOptions) -> NDArray[np.int8]:
    """Split validation and test off the training images, if the data names none, without using their labels.

    Args:
        listing: N images that passed :func:`check_unlabelled_listing`.
        keys: (N, 32) uint8, the key of each image, as for :func:`trainables.data.splits.assign_splits`.
        options: fractions and seed. The test split gets at most as many images as have a label.

    Returns:
        (N,) int8, the index into SPLITS of each image; UNSPLIT for test images without a label, which are left out.
    """
    missing = missing_splits(listing)
    # UNSPLIT is -1 and TRAIN is 0: images without a split count as training images.
    splits = np.maximum(listing.splits, TRAIN).astype(np.int8)
    splits[(splits == TEST) & (listing.labels == NO_LABEL)] = UNSPLIT
    whole = int((splits == TRAIN).sum())
    # The test split is drawn first, because it can only take images with a label; `left` images have to remain for
    # the splits that follow and for training.
    for left, split in reversed(list(enumerate(missing, start=1))):
        pool = np.flatnonzero(splits == TRAIN)
        able = pool[listing.labels[pool] != NO_LABEL] if split == "test" else pool
        most = min(len(able), len(pool) - left)
        size = min(max(1, round(whole * options.fraction(split))), most)
        # TEST - 1 is the validation split: only validation and test can be missing here.
        splits[_drawn(able, keys, options.seed, size, most)] = TEST if split == "test" else TEST - 1
    return splits


def hide_labels(listing: Listing, splits: NDArray[np.int8], known: tuple[str, ...], place: str) -> Listing:
    """Return the listing without the labels of training and validation images.

    Its classes are ``known``, followed by the other classes of the test images. ``place`` is for messages.

    Raises:
        UsageError: source and test have no class in common.
    """
    test = np.flatnonzero(splits == TEST)
    found = {listing.classes[label] for label in np.unique(listing.labels[test])}
    classes = _classes(found, known, place)
    labels = np.full(len(listing), NO_LABEL, np.int64)
    labels[test] = [classes.index(listing.classes[label]) for label in listing.labels[test]]
    unlabelled = int(((listing.splits == TEST) & (listing.labels == NO_LABEL)).sum())
    note = (f"left out {unlabelled:,} test images without a label",) if unlabelled else ()
    return replace(listing, labels=labels, classes=classes, notes=(*listing.notes, *note))


def _classes(found: set[str], known: tuple[str, ...], place: str) -> tuple[str, ...]:
    others = sorted(found - set(known))
    if known:
        shared_classes(known, sorted(found))
    if len(known) + len(others) < 2:
        raise DataError(
            f"{place} holds one class only, {quoted_list([*known, *others])}: expected at least two to tell apart."
        )
    return (*known, *others)


def _drawn(
    rows: NDArray[np.int64], keys: NDArray[np.uint8], seed: int, size: int, most: int
) -> NDArray[np.int64]:
    """Draw ``size`` of ``rows`` by seed and key, or up to ``most`` so that identical images stay together."""
    ranks = [hashlib.sha256(b"%d " % seed + keys[row].tobytes()).digest() for row in rows]
    order = sorted(range(len(rows)), key=ranks.__getitem__)
    _, stop = split_bounds([ranks[place] for place in order], [size])
    return rows[order[: stop if stop <= most else size]]
