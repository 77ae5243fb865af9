"""The digest of a task: of its classes, image size, splits, labels and pixels, in their order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from trainables.data.inputs.source import SPLITS
from trainables.data.task import Task

Digested = tuple[str, NDArray[np.int64], Iterable[bytes]]
"""A split's name, its (N,) labels and the SHA-256 of each image's pixels."""


def digest_of(classes: Sequence[str], size: tuple[int, int], splits: Iterable[Digested]) -> str:
    """Hex SHA-256 of a task with ``splits`` of images of ``size``, (H, W)."""
    digest = hashlib.sha256(json.dumps([classes, size]).encode())
    for name, labels, pixels in splits:
        digest.update(f"{name} {len(labels)} ".encode())
        digest.update(labels.astype("<i8").tobytes())
        for each in pixels:
            digest.update(each)
    return digest.hexdigest()


def task_digest(task: Task) -> str:
    """What a task's digest is by its files; all of them are read.

    Raises:
        DataError: a file is damaged so that it can't be read.
    """

    def split(name: str) -> Digested:
        found = task.split(name)
        return name, found.labels, (hashlib.sha256(image).digest() for image in found.images)

    return digest_of(task.classes, task.image_size, map(split, SPLITS))
