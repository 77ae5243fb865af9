"""Builds the files of a task from a data source: it lists, checks, decodes, splits and writes the examples."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainables.data.checks import check_labelled_listing
from trainables.data.inputs.options import DataOptions
from trainables.data.inputs.source import SPLITS, UNSPLIT, DataSource, Encoded, Listing, printable
from trainables.data.split_file import write_split
from trainables.data.splits import assign_splits, leak_notes, match_splits, split_notes
from trainables.data.task import Task, compute_digest, save_task
from trainables.data.unlabelled import assign_unlabelled, check_unlabelled_listing, hide_labels
from trainables.errors import DataError

MAX_NAMED_IMAGES = 10
"""Largest number of unreadable images that an error message lists."""

Order = NDArray[np.int64]
"""(n,) the rows of one split in their final order."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of decoded examples and their total."""


@dataclass
class DecodingResult:
    """What decoding made of the examples.

    Attributes:
        rows: numbers of the examples whose pixels were written, in the order of the file.
        digests: SHA-256 of the pixels of each of them, 32 bytes.
        contents: SHA-256 of each of them as it was encoded, 32 bytes.
        bad: numbers of the other examples, each with the reason why it can't be read.
    """

    rows: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)


Decode: TypeAlias = Callable[
    [Iterable[Encoded | None], int, tuple[int, int], BinaryIO, Progress | None], DecodingResult
]
"""Decodes examples: (encoded examples, their number, (H, W), file for the pixels, progress)."""


def check_listing(listing: Listing, place: str, options: DataOptions) -> None:
    """Check that a classifier can be trained, selected and tested on ``listing``.

    Args:
        listing: examples of a source, all of them or those that can be read.
        place: where they come from, for messages.
        options: whether the labels of training and validation are hidden, and the classes that are already known.

    Raises:
        DataError: there are too few examples or classes, or a class has none to train on.
        UsageError: the listing has no class in common with ``options.classes``.
    """
    if options.unlabelled:
        check_unlabelled_listing(listing, place, options.classes)
    else:
        check_labelled_listing(listing, place)


def build_task(
    name: str,
    source: DataSource,
    size: tuple[int, int],
    options: DataOptions,
    request: Mapping[str, Any],
    directory: Path,
    decode: Decode,
    progress: Progress | None = None,
    like: Task | None = None,
    by_pixels: bool = False,
) -> None:
    """Write the files of a task into the empty folder ``directory``.

    Splits and the order of the images follow from the encoded images, so that they are the same at every size.

    Args:
        name: name of the task.
        source: the examples.
        size: (H, W) in pixels.
        options: fractions of the splits, seed, and what to do with unreadable examples.
        request: what the task is made from, as JSON; stored with it.
        directory: an empty folder.
        decode: decodes the examples of ``source``.
        progress: called with the number of decoded examples and their total.
        like: a task of the same examples at another size, whose splits and order are taken over.
        by_pixels: derive splits and order from the decoded pixels, as earlier versions did.

    Raises:
        DataError: the data is unfit or unreadable, or the disk has too little room.
        OSError: writing failed.
    """
    listing = source.listing()
    check_listing(listing, source.place, options)
    # Before hours of decoding, not after them.
    _refuse_full_disk(len(listing), size, directory)
    pixels = directory / "pixels"
    with pixels.open("wb") as sink:
        decoded = decode(source.images(), len(listing), size, sink, progress)
    # From here on rows count the readable images only.
    good, skipped = _without_bad(listing, decoded, source.place, options)
    digests = _as_rows(decoded.digests)
    keys = decoded.digests if by_pixels else _keys(source, decoded)
    if like is None:
        assign = assign_unlabelled if options.unlabelled else assign_splits
        splits = assign(good, _as_rows(keys), options)
    else:
        splits = _splits_of(match_splits(like, good), len(good))
    if options.unlabelled:
        good = hide_labels(good, splits, options.classes, source.place)
    orders = _orders(keys, good, splits) if like is None else match_splits(like, good)
    _write_splits(directory, pixels, good, orders, size)
    task = Task(
        name=name,
        directory=directory,
        classes=good.classes,
        image_size=size,
        digest=_digest(good, digests, orders, size),
        counts={split: len(rows) for split, rows in zip(SPLITS, orders, strict=True)},
        source=source.place,
        skipped=skipped,
        notes=(*good.notes, *split_notes(good, splits, options), *leak_notes(digests, splits)),
    )
    save_task(task, request, directory)


def _without_bad(
    listing: Listing, decoded: DecodingResult, place: str, options: DataOptions
) -> tuple[Listing, tuple[tuple[str, str], ...]]:
    """Return the listing of the images that could be decoded, and (id, reason) of the others.

    Raises:
        DataError: some can't be read and ``options`` do not allow to leave them out, or too few remain.
    """
    _refuse_change(len(decoded.rows) + len(decoded.bad), len(listing), place)
    skipped = tuple((listing.ids[row], reason) for row, reason in decoded.bad)
    _refuse_bad(skipped, len(listing), place, options)
    good = listing.only(np.array(decoded.rows, dtype=np.int64))
    if skipped:
        check_listing(good, f"{place}, without the {len(skipped):,} images that can't be read,", options)
    return good, skipped


def _keys(source: DataSource, decoded: DecodingResult) -> list[bytes]:
    """Return the key of each readable image: the source's own, or the SHA-256 of the encoded image."""
    own = source.keys()
    return decoded.contents if own is None else [own[row] for row in decoded.rows]


def _as_rows(digests: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)


def _orders(keys: Sequence[bytes], listing: Listing, splits: NDArray[np.int8]) -> list[Order]:
    """Return the rows of each split, sorted by their keys.

    The order looks random but follows from the keys alone, so the same files give the same task whatever their names
    and whatever kind of source they come from. The label breaks ties between identical images.
    """

    def key(row: int) -> tuple[bytes, int]:
        return keys[row], int(listing.labels[row])

    rows = [np.flatnonzero(splits == number) for number in range(len(SPLITS))]
    return [np.array(sorted(each.tolist(), key=key), dtype=np.int64) for each in rows]


def _splits_of(orders: Sequence[Order], count: int) -> NDArray[np.int8]:
    splits = np.full(count, UNSPLIT, np.int8)
    for number, rows in enumerate(orders):
        splits[rows] = number
    return splits


def _write_splits(
    directory: Path, pixels: Path, listing: Listing, orders: Sequence[Order], size: tuple[int, int]
) -> None:
    with pixels.open("rb") as file:
        for name, rows in zip(SPLITS, orders, strict=True):
            ids = [listing.ids[row] for row in rows]
            write_split(directory / f"{name}.arrow", file, rows, listing.labels[rows], ids, size)
    pixels.unlink()


def _digest(
    listing: Listing, digests: NDArray[np.uint8], orders: Sequence[Order], size: tuple[int, int]
) -> str:
    splits = zip(SPLITS, orders, strict=True)
    return compute_digest(
        listing.classes,
        size,
        ((name, listing.labels[rows], [digests[rows].tobytes()]) for name, rows in splits),
    )


def _refuse_change(found: int, listed: int, place: str) -> None:
    if found != listed:
        raise DataError(
            f"{place} changed while it was read: expected {listed:,} images, found {found:,}. Run it again."
        )


def _refuse_bad(bad: Sequence[tuple[str, str]], total: int, place: str, options: DataOptions) -> None:
    if not bad or (options.skip_bad_images and len(bad) < total):
        return
    shown = "".join(f"\n  {image}: {reason}" for image, reason in bad[:MAX_NAMED_IMAGES])
    more = f"\n  and {len(bad) - MAX_NAMED_IMAGES:,} more" if len(bad) > MAX_NAMED_IMAGES else ""
    way_out = "" if len(bad) == total else ", or leave them out with --skip-bad-images (skip_bad_images)"
    raise DataError(
        f"{place}: {len(bad):,} of {total:,} images can't be read:{shown}{more}\n"
        f"Repair or remove them{way_out}."
    )


def _refuse_full_disk(count: int, size: tuple[int, int], directory: Path) -> None:
    # The pixels are on disk twice while they are sorted: in the order of the source and in that of the splits.
    needed = 2 * count * size[0] * size[1] * 3
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise DataError(
            f"preparing {count:,} images of {size[0]}x{size[1]} pixels takes {needed / 1e9:.1f} GB of disk, "
            f"but {printable(directory)} has {free / 1e9:.1f} GB free. Free some, choose another --storage, "
            "or a smaller --input-size."
        )
