"""Defines the key of a cache entry: everything that its numbers depend on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

ENTRY_FORMAT = 1
"""Version of the files and of the computation. Increase it whenever stages, rounding, views or the recipe of
augmentation change, so that old entries are not read."""


@dataclass(frozen=True)
class EntryKey:
    """Everything that changes the activations of one split at one cut.

    Attributes:
        prefix: digest of preprocessing, configuration, precision and weights below the cut.
        data: digest of the task.
        split: train, validation or test.
        input_size: (H, W) in pixels.
        level: augmentation strength.
        flip: whether half of the images are mirrored.
        view: number of the view.
        chunk: number of images that are computed at once; the last bits of a convolution depend on it.
        software: versions of Keras and TensorFlow, and the kind of device.
    """

    prefix: str
    data: str
    split: str
    input_size: tuple[int, int]
    level: float
    flip: bool
    view: int
    chunk: int
    software: str

    @property
    def text(self) -> str:
        """The key as JSON, with the version of the format."""
        return json.dumps({"format": ENTRY_FORMAT, **asdict(self)}, sort_keys=True)

    @cached_property
    def digest(self) -> str:
        """32 hexadecimal digits of SHA-256, the name of the entry's file."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]
