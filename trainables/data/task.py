"""Reads and writes prepared tasks: a folder with one Arrow file per split, and ``task.json``, which is written last.

``task.json`` holds size, modification time and SHA-256 of each file. A search verifies the files before it starts
(:func:`find_task`); :func:`open_task`, which every process calls, compares only the sizes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.inputs.source import SPLITS, printable
from trainables.data.split_file import Split, open_split
from trainables.errors import DataError

TASK_FILE = "task.json"
ALWAYS_HASHED_BYTES = 1 << 30
"""Splits of at most this many bytes together are hashed at each start of a search.

Of larger ones only the files whose modification time has changed are hashed."""

TASK_FORMAT = 1
"""Version of the files. Increase it whenever the same input would give other pixels or other files."""

SPLITS_RULE = "splits"
"""Key of a request that names how the splits were made: :data:`BY_CONTENT`, or ``like`` and the digest of the task that
they were taken from. Earlier versions wrote no such key; they made splits from the pixels at the size of the task."""

BY_CONTENT = "content"
"""The splits follow from the encoded images, so that they are the same at every size."""


@dataclass(frozen=True)
class Task:
    """A dataset with train, validation and test splits on disk.

    Attributes:
        name: name of the task (:func:`trainables.data.inputs.options.task_name`).
        directory: folder with train.arrow, validation.arrow, test.arrow and task.json.
        classes: class names, in the order of their indices.
        image_size: (H, W) in pixels.
        digest: hexadecimal SHA-256 over classes, image size, splits, labels and pixels. The order of the images
            follows from their pixels, so tasks with the same digest are the same arrays, whatever they were read from.
        counts: number of images of each split.
        source: description of where the data came from.
        skipped: (id, reason) of the images that were left out because they can't be read.
        notes: sentences for the user on what was split off, was left out, or looks wrong.
    """

    name: str
    directory: Path
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    digest: str
    counts: Mapping[str, int]
    source: str
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> Split:
        """Map the split ``name`` (train, validation or test) into memory.

        Raises:
            DataError: there is no such split, or its file is damaged.
        """
        if name not in self.counts:
            raise DataError(f"split: expected one of {', '.join(self.counts)}, received {name!r}")
        path = self.directory / f"{name}.arrow"
        try:
            split = open_split(path, name)
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise DataError(
                f"{printable(path)} is damaged: {error}. {_repeat_hint(self.directory)}"
            ) from error
        if split.images.shape != (self.counts[name], *self.image_size, 3):
            raise DataError(f"{printable(path)} belongs to another task. {_repeat_hint(self.directory)}")
        return split


def open_task(directory: Path) -> Task:
    """Open the task in ``directory``.

    Raises:
        DataError: there is no task, it is incomplete, or its files are damaged.
    """
    path = directory / TASK_FILE
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return _task(directory, facts)
    except FileNotFoundError as error:
        raise DataError(
            f"{printable(directory)} holds no prepared data: {error.filename} is missing"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{printable(path)} is damaged: {error}. {_repeat_hint(directory)}") from error


def find_task(directory: Path, request: Mapping[str, Any]) -> Task | None:
    """Return the task in ``directory`` if it is undamaged and was made from ``request``; None if it has to be made.

    How its splits were made does not matter: a search that is resumed keeps the splits with which it began.
    """
    try:
        facts = json.loads((directory / TASK_FILE).read_text(encoding="utf-8"))
        if _without_rule(facts["request"]) != _without_rule(request):
            return None
        task = _task(directory, facts)
        return task if _as_written(directory, facts) else None
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return None  # absent, incomplete or damaged: in each case the task has to be made


def read_request(directory: Path) -> dict[str, Any] | None:
    """Return what the task in ``directory`` was made from; None if there is no readable task of this format."""
    try:
        facts = json.loads((directory / TASK_FILE).read_text(encoding="utf-8"))
        return dict(facts["request"]) if facts["format"] == TASK_FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _without_rule(request: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in request.items() if key != SPLITS_RULE}


def save_task(task: Task, request: Mapping[str, Any], directory: Path) -> None:
    """Write ``task.json`` for the split files in ``directory``, with ``request``, what the task was made from."""
    facts = {
        "format": TASK_FORMAT,
        "name": task.name,
        "classes": task.classes,
        "image_size": task.image_size,
        "digest": task.digest,
        "counts": dict(task.counts),
        "source": task.source,
        "skipped": task.skipped,
        "notes": task.notes,
        "files": {name: (directory / f"{name}.arrow").stat().st_size for name in SPLITS},
        "written": {
            name: {"time": path.stat().st_mtime_ns, "sha256": _sha256(path)}
            for name, path in ((name, directory / f"{name}.arrow") for name in SPLITS)
        },
        "request": request,
    }
    with (directory / TASK_FILE).open("w", encoding="utf-8") as file:
        json.dump(facts, file, ensure_ascii=False, indent=1)
        # task.json makes the task valid, so it has to be on the disk before the task is used.
        file.flush()
        os.fsync(file.fileno())


def _task(directory: Path, facts: Mapping[str, Any]) -> Task:
    if facts["format"] != TASK_FORMAT:
        raise DataError(f"{printable(directory)}: expected format {TASK_FORMAT}, received {facts['format']}")
    for name, size in facts["files"].items():
        path = directory / f"{name}.arrow"
        found = path.stat().st_size
        if found != size:
            raise DataError(
                f"{printable(path)}: expected {size:,} bytes, found {found:,}. {_repeat_hint(directory)}"
            )
    height, width = facts["image_size"]
    return Task(
        name=facts["name"],
        directory=directory,
        classes=tuple(facts["classes"]),
        image_size=(height, width),
        digest=facts["digest"],
        counts=facts["counts"],
        source=facts["source"],
        skipped=tuple((image, reason) for image, reason in facts["skipped"]),
        notes=tuple(facts["notes"]),
    )


def _as_written(directory: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the split files are unchanged. True for tasks of earlier versions, which did not store their digests."""
    small = sum(facts["files"].values()) <= ALWAYS_HASHED_BYTES
    for name, file in facts.get("written", {}).items():
        path = directory / f"{name}.arrow"
        if (small or path.stat().st_mtime_ns != file["time"]) and _sha256(path) != file["sha256"]:
            return False
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _repeat_hint(directory: Path) -> str:
    return f"Delete {printable(directory)} and run the search again."


SplitDigests = tuple[str, NDArray[np.int64], Iterable[bytes]]
"""A split: its name, its (N,) labels and the SHA-256 of the pixels of each image."""


def compute_digest(classes: Sequence[str], size: tuple[int, int], splits: Iterable[SplitDigests]) -> str:
    """Return the SHA-256 of a task in hexadecimal: of classes, ``size`` (H, W), splits, labels and pixels."""
    digest = hashlib.sha256(json.dumps([classes, size]).encode())
    for name, labels, pixels in splits:
        digest.update(f"{name} {len(labels)} ".encode())
        digest.update(labels.astype("<i8").tobytes())
        for each in pixels:
            digest.update(each)
    return digest.hexdigest()


def task_digest(task: Task) -> str:
    """Compute the digest of ``task`` from its files, all of which are read.

    Raises:
        DataError: a file is damaged.
    """

    def split(name: str) -> SplitDigests:
        found = task.split(name)
        return name, found.labels, (hashlib.sha256(image).digest() for image in found.images)

    return compute_digest(task.classes, task.image_size, map(split, SPLITS))
