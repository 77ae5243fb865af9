"""What an entry's numbers depend on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

ENTRY_FORMAT = 1
"""Version of the files and of how activations are computed; raise it whenever stages, rounding, views or the recipe of
augmentation change."""


@dataclass(frozen=True)
class EntryKey:
    """Everything that changes the activations of one split at one cut.

    ``prefix`` is the digest of preprocessing, configuration, precision and weights below the cut; ``data`` that of the
    task's images; ``level``, ``flip`` and ``view`` say how images are distorted; ``chunk`` is how many go through at
    once; ``software`` names Keras, TensorFlow and the kind of device.
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
        """The key as JSON, with the format's version."""
        return json.dumps({"format": ENTRY_FORMAT, **asdict(self)}, sort_keys=True)

    @cached_property
    def digest(self) -> str:
        """32 hexadecimal digits, the name of the entry's file."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]
