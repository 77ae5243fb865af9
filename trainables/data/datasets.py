"""Datasets: any input becomes three Arrow files, decoded and resized once and mapped by every trial.

Inputs are ``digits``, image folders, and Parquet or Arrow files (see :mod:`trainables.data.inputs`). Preparing is
all or nothing: files are made in a folder of their own and moved into place, ``task.json`` last, under a
lock.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from trainables.data.build_task import build_task, check_listing
from trainables.data.inputs.find import find_data_source
from trainables.data.inputs.options import DIGITS, DataOptions, task_name
from trainables.data.inputs.source import SPLITS, DataSource, printable
from trainables.data.split_file import Split
from trainables.data.task import TASK_FILE, TASK_FORMAT, Task, find_task, open_task
from trainables.errors import DataError, UsageError
from trainables.modalities.image.digits import CLASSES

__all__ = ["DataOptions", "Split", "Task", "check_data", "open_task", "prepare", "task_name"]

PARTIAL_FOLDER = ".partial"
LOCK_FILE = ".lock"
MAX_IMAGE_SIDE = 4096
"""Pixels of an image's side."""

DEFAULT_OPTIONS = DataOptions()


def prepare(
    data: str,
    *,
    image_size: tuple[int, int],
    directory: Path,
    options: DataOptions = DEFAULT_OPTIONS,
    progress: Callable[[int, int], None] | None = None,
    like: Task | None = None,
) -> Task:
    """Decode ``data`` into ``directory``, or open it if it is there already.

    What is there is taken if it was made from the same files (by name, size and time), options and image
    size; else it is replaced. Two processes may call this at once: one works, the other waits and then
    opens.

    Args:
        data: ``digits``, an image folder, or a Parquet or Arrow file or a folder of them.
        image_size: (H, W) in pixels that every image is stretched to.
        directory: where the task goes; made if it isn't there.
        options: columns, fractions of the split, and whether bad images are left out.
        progress: called with how many images are decoded, and how many there are.
        like: a task of the same images in another size, whose splits this one takes over, image by image.

    Returns:
        The task; its ``notes`` say what was split off or left out.

    Raises:
        UsageError: ``image_size`` or ``data`` isn't of the kind, or has no class in common with those that ``options``
            names.
        DataError: the data is missing, unreadable or unfit, or can't be written.
    """
    height, width = _checked(image_size)
    directory = Path(directory).absolute()
    source = find_data_source(data, directory.resolve(), options)
    request = _request(source, (height, width), options, like)
    found = find_task(directory, request)
    if found is not None:
        return found
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / LOCK_FILE):
            found = find_task(directory, request)
            if found is None:
                _make(data, source, (height, width), options, request, directory, progress, like)
    except OSError as error:
        raise DataError(f"can't write prepared images to {printable(directory)}: {error}") from error
    return found or open_task(directory)


def check_data(data: str, *, directory: Path, options: DataOptions = DEFAULT_OPTIONS) -> tuple[str, ...]:
    """Refuse what needs no image to be decoded: what :func:`prepare` would refuse after a while.

    Args:
        data: as for :func:`prepare`.
        directory: where tasks go; no part of the input even if it lies inside it.
        options: which columns and labels to read.

    Returns:
        The names of its classes; of an ``unlabelled`` input those that the labels name which may be read.

    Returns:
        The names of its classes.

    Raises:
        UsageError: ``data`` isn't of the kind, or has no class in common with those that ``options`` names.
        DataError: the data is missing, or its files, columns, labels or splits are unreadable or unfit.
    """
    if data == DIGITS:
        return CLASSES
    source = find_data_source(data, Path(directory).absolute().resolve(), options)
    listing = source.listing()
    check_listing(listing, source.place, options)
    return listing.classes


def _make(
    data: str,
    source: DataSource,
    size: tuple[int, int],
    options: DataOptions,
    request: dict[str, Any],
    directory: Path,
    progress: Callable[[int, int], None] | None,
    like: Task | None,
) -> None:
    """Build the task apart, then move it into place; what a killed process left behind goes first."""
    partial = directory / PARTIAL_FOLDER
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        build_task(task_name(data), source, size, options, request, partial, progress, like)
        (directory / TASK_FILE).unlink(missing_ok=True)
        for name in [*(f"{split}.arrow" for split in SPLITS), TASK_FILE]:
            (partial / name).replace(directory / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _request(
    source: DataSource, size: tuple[int, int], options: DataOptions, like: Task | None
) -> dict[str, Any]:
    """What a task is made from, as JSON."""
    return {
        **({"like": like.digest} if like is not None else {}),
        "format": TASK_FORMAT,
        "place": source.place,
        "fingerprint": source.fingerprint(),
        "image_size": list(size),
        "options": options.as_json(),
    }


def _checked(size: tuple[int, int]) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in size)
        good = (
            (height, width) == tuple(size) and 1 <= height <= MAX_IMAGE_SIDE and 1 <= width <= MAX_IMAGE_SIDE
        )
    except (TypeError, ValueError):
        good = False
    if not good:
        raise UsageError(
            f"image_size: expected (height, width) from 1 to {MAX_IMAGE_SIDE} pixels, received {size!r}"
        )
    return height, width
