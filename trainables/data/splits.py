"""Splits what came unsplit: stratified by class, by a seed, and by nothing but the pixels.

Which split an image gets depends on its pixels, its class and the seed: not on its name, its place in the
input or the kind of input. Identical images of a class stay together, so that none is tested on that was
trained on.

The splits of a task that is there already, for the same images in another size.

Which split an image gets and where it stands there follows from its pixels, which are others in another size.
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
    """Rows of ``listing`` for each of SPLITS: the images of ``task``, found by their ids, in its order.

    Raises:
        DataError: an image of the task is not in the listing.
    """
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


def assign_splits(listing: Listing, digests: NDArray[np.uint8], options: DataOptions) -> NDArray[np.int8]:
    """(N,) index into SPLITS of each image; validation and test are split off train where the input has none.

    Args:
        listing: N images, fit to be split.
        digests: (N, 32) of their pixels.
        options: fractions and seed.
    """
    missing = missing_splits(listing)
    splits = np.maximum(listing.splits, TRAIN).astype(np.int8)
    fractions = [options.fraction(split) for split in missing]
    for label in range(len(listing.classes)):
        rows = np.flatnonzero((listing.labels == label) & (splits == TRAIN))
        keys = [hashlib.sha256(b"%d " % options.seed + digests[row].tobytes()).digest() for row in rows]
        order = sorted(range(len(rows)), key=keys.__getitem__)
        bounds = split_bounds([keys[place] for place in order], _sizes(len(rows), fractions))
        for split, (start, stop) in zip(missing, pairwise(bounds), strict=True):
            splits[rows[order[start:stop]]] = SPLITS.index(split)
    return splits


def split_notes(listing: Listing, splits: NDArray[np.int8], options: DataOptions) -> tuple[str, ...]:
    """What was split off here, in words."""
    sizes = {split: int((splits == SPLITS.index(split)).sum()) for split in missing_splits(listing)}
    if not sizes:
        return ()
    parts = " and ".join(f"{size:,} images for {split}" for split, size in sizes.items())
    return (f"the data names no {' and no '.join(sizes)} split: split off {parts} (seed {options.seed})",)


def leak_notes(digests: NDArray[np.uint8], splits: NDArray[np.int8]) -> tuple[str, ...]:
    """A warning for each split that holds images which are in train, too."""
    keys = [digest.tobytes() for digest in digests]
    trained = {key for key, split in zip(keys, splits, strict=True) if split == TRAIN}
    leaks = [split for key, split in zip(keys, splits, strict=True) if split != TRAIN and key in trained]
    counts = {name: leaks.count(number) for number, name in enumerate(SPLITS)}
    return tuple(
        f"{n:,} images of {name} are in train, too, pixel for pixel" for name, n in counts.items() if n
    )


def _sizes(count: int, fractions: Sequence[float]) -> list[int]:
    """How many of ``count`` images go to each split: at least one, and at least one is left to train on."""
    sizes = [max(1, round(count * fraction)) for fraction in fractions]
    while sum(sizes) >= count:
        sizes[sizes.index(max(sizes))] -= 1
    return sizes


def split_bounds(keys: Sequence[bytes], sizes: Sequence[int]) -> list[int]:
    """Where splits start and stop among sorted ``keys``; equal keys are parted only if they must be."""
    exact, whole = [0], [0]
    for size in sizes:
        exact.append(exact[-1] + size)
        end = min(whole[-1] + size, len(keys))
        while 0 < end < len(keys) and keys[end] == keys[end - 1]:
            end += 1
        whole.append(end)
    fits = whole[-1] < len(keys) and all(start < stop for start, stop in pairwise(whole))
    return whole if fits or not sizes else exact
