"""Assigns images to splits, stratified by class, where the data names no splits.

The split of an image depends on its key (the SHA-256 of its file), its class and the seed, not on its name, its
position, the kind of input or the size to which it is decoded. Identical files of a class stay in one split, so that no
test image was trained on. :func:`match_splits` takes the splits over from an existing task, whatever made them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trainables.data.checks import TRAIN, missing_splits
from trainables.data.inputs.options import DataOptions
from trainables.data.inputs.source import SPLITS, Listing
from trainables.data.task import Task
from trainables.errors import DataError


def match_splits(task: Task, listing: Listing) -> list[NDArray[np.int64]]:
    """Find the images of ``task`` in ``listing`` by their ids.

    Returns:
        For each of SPLITS the rows of the listing, in the order of the task.

    Raises:
        DataError: an image of the task is not in the listing.
    """
    # Ids need not be unique: the rows of one id are used in their order.
    places: defaultdict[str, deque[int]] = defaultdict(deque)
    for row, name in enumerate(listing.ids):
        places[name].append(row)
    orders = []
    for split in SPLITS:
        ids = [str(name) for name in task.split(split).ids]
        missing = [name for name in ids if not places[name]]
        if missing:
            raise DataError(
                f"{split}: expected the images of the prepared {task.name!r}, received none named {missing[0]!r}: "
                "the data has changed since. Run it again."
            )
        orders.append(np.array([places[name].popleft() for name in ids], dtype=np.int64))
    return orders


def assign_splits(listing: Listing, keys: NDArray[np.uint8], options: DataOptions) -> NDArray[np.int8]:
    """Split validation and test off the training images, if the data names none.

    Args:
        listing: N images that passed :func:`trainables.data.checks.check_labelled_listing`.
        keys: (N, 32) uint8, the key of each image; identical images have the same.
        options: fractions and seed.

    Returns:
        (N,) int8, the index into SPLITS of each image.
    """
    missing = missing_splits(listing)
    # UNSPLIT is -1 and TRAIN is 0: images without a split count as training images, from which the splits are
    # taken.
    splits = np.maximum(listing.splits, TRAIN).astype(np.int8)
    fractions = [options.fraction(split) for split in missing]
    for label in range(len(listing.classes)):
        rows = np.flatnonzero((listing.labels == label) & (splits == TRAIN))
        # A hash of seed and key is a shuffle that does not depend on the order of the input.
        ranks = [hashlib.sha256(b"%d " % options.seed + keys[row].tobytes()).digest() for row in rows]
        order = sorted(range(len(rows)), key=ranks.__getitem__)
        bounds = split_bounds([ranks[place] for place in order], _sizes(len(rows), fractions))
        for split, (start, stop) in zip(missing, pairwise(bounds), strict=True):
            splits[rows[order[start:stop]]] = SPLITS.index(split)
    return splits


def split_notes(listing: Listing, splits: NDArray[np.int8], options: DataOptions) -> tuple[str, ...]:
    """Return a sentence for the user on the splits that were made here; none if the data names its own."""
    sizes = {split: int((splits == SPLITS.index(split)).sum()) for split in missing_splits(listing)}
    if not sizes:
        return ()
    parts = " and ".join(f"{size:,} images for {split}" for split, size in sizes.items())
    return (f"the data names no {' and no '.join(sizes)} split: split off {parts} (seed {options.seed})",)


def leak_notes(digests: NDArray[np.uint8], splits: NDArray[np.int8]) -> tuple[str, ...]:
    """Return a warning for each split that holds images which are also in train.

    Args:
        digests: (N, 32) uint8, SHA-256 of the pixels of each image: two files may hold the same picture.
        splits: (N,) index into SPLITS, or UNSPLIT.
    """
    keys = [digest.tobytes() for digest in digests]
    trained = {key for key, split in zip(keys, splits, strict=True) if split == TRAIN}
    leaks = [split for key, split in zip(keys, splits, strict=True) if split != TRAIN and key in trained]
    counts = {name: leaks.count(number) for number, name in enumerate(SPLITS)}
    return tuple(
        f"{n:,} images of {name} are in train, too, pixel for pixel" for name, n in counts.items() if n
    )


def _sizes(count: int, fractions: Sequence[float]) -> list[int]:
    """Return how many of ``count`` images each split gets: at least one, and at least one remains to train on."""
    sizes = [max(1, round(count * fraction)) for fraction in fractions]
    # check_labelled_listing requires one image more than there are splits to make, so no size falls below 1.
    while sum(sizes) >= count:
        sizes[sizes.index(max(sizes))] -= 1
    return sizes


def split_bounds(keys: Sequence[bytes], sizes: Sequence[int]) -> list[int]:
    """Return where splits of ``sizes`` start and stop among sorted ``keys``: one more number than sizes.

    Each split grows until its last key differs from the next one, so that equal keys (identical images) stay together.
    If nothing would be left then, the exact sizes are used and equal keys may be separated.
    """
    exact, whole = [0], [0]
    for size in sizes:
        exact.append(exact[-1] + size)
        end = min(whole[-1] + size, len(keys))
        while 0 < end < len(keys) and keys[end] == keys[end - 1]:
            end += 1
        whole.append(end)
    fits = whole[-1] < len(keys) and all(start < stop for start, stop in pairwise(whole))
    return whole if fits or not sizes else exact
