"""Prepares image datasets: the built-in digits, image folders, and Parquet or Arrow files with an image column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from trainables.data.build_task import Progress
from trainables.data.datasets import check_source, prepare_task
from trainables.data.inputs.find import find_data_source
from trainables.data.inputs.options import DIGITS, DataOptions, task_name
from trainables.data.inputs.source import DataSource
from trainables.data.task import Task
from trainables.errors import UsageError
from trainables.modalities.image.decoding import decode_all
from trainables.modalities.image.digits import CLASSES, DigitsSource
from trainables.modalities.image.folders import ImageFolder

MAX_IMAGE_SIDE = 4096
"""Largest height and width of a prepared image, in pixels."""

DEFAULT_OPTIONS = DataOptions()

BUILT_IN: Mapping[str, Callable[[], DataSource]] = {DIGITS: DigitsSource}
"""Data sets that have a name and need no file."""


def prepare(
    data: str,
    *,
    image_size: tuple[int, int],
    directory: Path,
    options: DataOptions = DEFAULT_OPTIONS,
    progress: Progress | None = None,
    like: Task | None = None,
    source: DataSource | None = None,
) -> Task:
    """Decode the images of ``data`` into ``directory``, or open the task that is already there.

    Args:
        data: ``digits``, an image folder, or a Parquet or Arrow file or a folder of such files.
        image_size: (H, W) in pixels to which every image is stretched; each from 1 to :data:`MAX_IMAGE_SIDE`.
        directory: folder for the task; created if it does not exist.
        options: columns, fractions of the splits, and whether unreadable images are left out.
        progress: called with the number of decoded images and their total.
        like: a task of the same images at another size. The new task takes over its splits, image by image.
        source: ``data``, if :func:`open_source` has opened it already; its files are not listed again.

    Returns:
        The task. Its ``notes`` tell the user what was split off or left out.

    Raises:
        UsageError: ``image_size`` or ``data`` is not valid, or the data has no class in common with
            ``options.classes``.
        DataError: the data is missing, unreadable or unfit, or the task can't be written.

    >>> task = prepare("digits", image_size=(32, 32), directory=Path("task"))  # doctest: +SKIP
    >>> task.split("train").images.shape  # doctest: +SKIP
    (100, 32, 32, 3)
    """
    size = _checked(image_size)
    directory = Path(directory).absolute()
    source = source or open_source(data, directory=directory, options=options)  # checks ``data`` first
    return prepare_task(
        task_name(data),
        source,
        image_size=size,
        directory=directory,
        options=options,
        decode=decode_all,
        progress=progress,
        like=like,
    )


def check_data(
    data: str, *, directory: Path, options: DataOptions = DEFAULT_OPTIONS, source: DataSource | None = None
) -> tuple[str, ...]:
    """Check everything about ``data`` that needs no image to be decoded, before :func:`prepare` takes its time.

    Args:
        data: as for :func:`prepare`.
        directory: where tasks are written; no part of the input even if it lies inside it.
        options: which columns and labels to read.
        source: as for :func:`prepare`.

    Returns:
        The class names. For an ``unlabelled`` input these are the classes of the labels that may be read.

    Raises:
        UsageError: ``data`` is not valid, or has no class in common with ``options.classes``.
        DataError: the data is missing, or its files, columns, labels or splits are unreadable or unfit.
    """
    if data == DIGITS:
        return CLASSES
    return check_source(source or open_source(data, directory=directory, options=options), options)


def open_source(data: str, *, directory: Path, options: DataOptions = DEFAULT_OPTIONS) -> DataSource:
    """Find the files of ``data`` and list them, which takes a while for a large folder.

    Args:
        data: as for :func:`prepare`.
        directory: where tasks are written; no part of the input even if it lies inside it.
        options: which columns and labels to read.

    Raises:
        UsageError: ``data`` is not valid.
        DataError: the data is missing, or its files or columns are unreadable.
    """
    ours = Path(directory).absolute().resolve()

    def open_folder(path: Path) -> DataSource:
        return ImageFolder(path, ours, options.unlabelled)

    return find_data_source(data, options, built_in=BUILT_IN, open_folder=open_folder)


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
