"""Prepares tasks: reads any data source once and writes one Arrow file per split for every trial to map.

Preparation is all or nothing. The files are made in a folder of their own and then moved to their final place under a
lock, ``task.json`` last. This module knows no kind of example: the caller passes the source and the function that
decodes its examples (for images :mod:`trainables.modalities.image.datasets`).

Splits follow from the encoded examples, so that a dataset has the same splits at every size. Earlier versions made them
from the decoded pixels, which differ between sizes. Searches of one storage have to stay comparable, so tasks that were
prepared by an earlier version keep their splits, and other sizes of the same data in the same storage take them over.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from trainables.data.build_task import Decode, Progress, build_task, check_listing
from trainables.data.inputs.options import DataOptions
from trainables.data.inputs.source import SPLITS, DataSource, printable
from trainables.data.task import (
    BY_CONTENT,
    SPLITS_RULE,
    TASK_FILE,
    TASK_FORMAT,
    Task,
    find_task,
    open_task,
    read_request,
)
from trainables.errors import DataError

PARTIAL_FOLDER = ".partial"
LOCK_FILE = ".lock"


def prepare_task(
    name: str,
    source: DataSource,
    *,
    image_size: tuple[int, int],
    directory: Path,
    options: DataOptions,
    decode: Decode,
    progress: Progress | None = None,
    like: Task | None = None,
) -> Task:
    """Decode ``source`` into ``directory``, or open the task that is already there.

    An existing task is reused if it was made from the same files (by name, size and modification time), with the same
    options and image size; otherwise it is replaced. Two processes may call this function at the same time: one
    prepares the task, the other waits and then opens it.

    Args:
        name: name of the task (:func:`trainables.data.inputs.options.task_name`).
        source: the examples.
        image_size: (H, W) in pixels to which every image is stretched.
        directory: folder for the task; created if it does not exist. Tasks of other sizes may lie next to it.
        options: columns, fractions of the splits, and whether unreadable examples are left out.
        decode: decodes the encoded examples of ``source``.
        progress: called with the number of decoded examples and their total.
        like: a task of the same examples at another size. The new task takes over its splits, example by example. None
            takes over those of a task of an earlier version next to ``directory``, if there is one.

    Returns:
        The task. Its ``notes`` tell the user what was split off or left out.

    Raises:
        DataError: the data is unreadable or unfit, or the task can't be written.
        UsageError: the data has no class in common with ``options.classes``.
    """
    request = _request(source, image_size, options, like)
    found = find_task(directory, request)
    if found is not None:
        return found
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / LOCK_FILE):
            # Another process may have prepared the task while this one waited for the lock.
            found = find_task(directory, request)
            if found is None:
                _make(name, source, image_size, options, request, directory, decode, progress, like)
    except OSError as error:
        raise DataError(f"can't write prepared images to {printable(directory)}: {error}") from error
    return found or open_task(directory)


def check_source(source: DataSource, options: DataOptions) -> tuple[str, ...]:
    """Check everything about ``source`` that needs no example to be decoded; :func:`prepare_task` checks the rest.

    Returns:
        The class names. For an ``unlabelled`` source these are the classes of the labels that may be read.

    Raises:
        DataError: files, columns, labels or splits are unreadable or unfit.
        UsageError: the data has no class in common with ``options.classes``.
    """
    listing = source.listing()
    check_listing(listing, source.place, options)
    return listing.classes


def _make(
    name: str,
    source: DataSource,
    size: tuple[int, int],
    options: DataOptions,
    request: dict[str, Any],
    directory: Path,
    decode: Decode,
    progress: Progress | None,
    like: Task | None,
) -> None:
    """Build the task in a folder of its own, then move it to ``directory``."""
    by_pixels = like is None and _was_split_by_pixels(directory, request)
    if like is None and not by_pixels:
        like = _earlier_task(directory, request)
        request = {**request, SPLITS_RULE: BY_CONTENT if like is None else f"like {like.digest}"}
    partial = directory / PARTIAL_FOLDER
    shutil.rmtree(partial, ignore_errors=True)  # a killed process may have left its files there
    partial.mkdir()
    try:
        build_task(name, source, size, options, request, partial, decode, progress, like, by_pixels)
        # Without task.json the folder holds no task: removed first and moved last, it never describes other files.
        (directory / TASK_FILE).unlink(missing_ok=True)
        for file in [*(f"{split}.arrow" for split in SPLITS), TASK_FILE]:
            (partial / file).replace(directory / file)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _was_split_by_pixels(directory: Path, request: Mapping[str, Any]) -> bool:
    """Whether an earlier version prepared this data in ``directory``, perhaps before its files were changed.

    It is prepared again in the same way. Otherwise files that were merely copied would get other splits.
    """
    found = read_request(directory)
    return found is not None and _same(found, request, but="fingerprint")


def _earlier_task(directory: Path, request: Mapping[str, Any]) -> Task | None:
    """Return the task of the same files and options at another size that an earlier version prepared next to
    ``directory``; of several the first one that was made."""
    found = []
    for file in directory.parent.glob(f"*/{TASK_FILE}"):
        other = read_request(file.parent)
        if file.parent != directory and other is not None and _same(other, request, but="image_size"):
            task = find_task(file.parent, other)
            if task is not None:
                found.append((file.stat().st_mtime_ns, file.parent.name, task))
    return min(found, key=lambda each: each[:2])[2] if found else None


def _same(found: Mapping[str, Any], request: Mapping[str, Any], but: str) -> bool:
    """Whether ``found``, the request of an earlier version, equals ``request`` in all values except ``but``."""
    return {**found, but: None} == {**request, but: None}


def _request(
    source: DataSource, size: tuple[int, int], options: DataOptions, like: Task | None
) -> dict[str, Any]:
    """What a task is made from, as JSON. A task with the same request need not be prepared again."""
    return {
        **({"like": like.digest} if like is not None else {}),
        "format": TASK_FORMAT,
        "place": source.place,
        "fingerprint": source.fingerprint(),
        "image_size": list(size),
        "options": options.as_json(),
    }
