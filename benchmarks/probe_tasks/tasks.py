"""The tasks by name, and how one is written as an image folder with train, validation and test splits.

The split is fixed, so that every seed of a search and the plain probe have the same test images. Images are written at
the input size of the backbone. A task is one line in :data:`TASKS`.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.probe_tasks.package_images import (
    Example,
    digits,
    emoji_groups,
    emoji_kinds,
    emoji_people,
    stamps,
    textures,
)
from benchmarks.probe_tasks.rendered_text import characters, fonts


@dataclass(frozen=True)
class ProbeTask:
    """A task.

    Attributes:
        examples: returns the images, given the folder of downloaded packages.
        can_gain: whether fine-tuning can be expected to help, because there are many labels or because the images are
            far from photographs.
    """

    examples: Callable[[Path], list[Example]]
    can_gain: bool


TASKS: Mapping[str, ProbeTask] = {
    "stamps": ProbeTask(stamps, can_gain=False),
    "emoji-groups": ProbeTask(emoji_groups, can_gain=False),
    "emoji-kinds": ProbeTask(emoji_kinds, can_gain=True),
    "emoji-people": ProbeTask(emoji_people, can_gain=False),
    "textures": ProbeTask(textures, can_gain=False),
    "digits": ProbeTask(digits, can_gain=True),
    "characters": ProbeTask(characters, can_gain=True),
    "fonts": ProbeTask(fonts, can_gain=True),
}

SPLITS: Mapping[str, float] = {"test": 0.3, "validation": 0.15}
"""Shares of the images of each label; the others are training images."""


@dataclass(frozen=True)
class WrittenTask:
    """A task as an image folder.

    Attributes:
        folder: with ``train``, ``validation`` and ``test``, and a folder for each label in them.
        labels: number of labels.
        counts: number of images of each split.
    """

    folder: Path
    labels: int
    counts: Mapping[str, int]


def write_task(name: str, size: int, folder: Path) -> WrittenTask:
    """Write the task ``name`` with images of ``size`` × ``size`` pixels below ``folder``, unless it is there.

    Packages are downloaded to ``folder/packages``.
    """
    kept = folder / f"{name}-{size}"
    if not kept.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        # The folder gets its name when it is complete, so that a process that was ended leaves no part of a task.
        made = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
        try:
            _write(TASKS[name].examples(folder / "packages"), size, made)
            made.rename(kept)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    files = {split: list((kept / split).glob("*/*.png")) for split in ("train", "validation", "test")}
    return WrittenTask(
        kept,
        len({file.parent.name for file in files["train"]}),
        {split: len(found) for split, found in files.items()},
    )


def _write(examples: list[Example], size: int, folder: Path) -> None:
    by_label: dict[str, list[Image.Image]] = {}
    for label, image in examples:
        by_label.setdefault(re.sub(r"[^\w+-]+", "-", label), []).append(image)
    generator = np.random.default_rng(0)
    for label, images in by_label.items():
        for place, split in zip(generator.permutation(len(images)), _splits(len(images)), strict=True):
            file = folder / split / label / f"{place:04}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            images[place].resize((size, size), Image.Resampling.BICUBIC).save(file)


def _splits(count: int) -> list[str]:
    """The splits of ``count`` images of one label, at least one image in each."""
    parts = [split for split, share in SPLITS.items() for _ in range(max(1, round(share * count)))]
    return [*parts, *["train"] * (count - len(parts))]
