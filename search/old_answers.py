"""What the winner's trainings say of each test image of an old task, kept when they are measured.

One bit an image and training: it travels with the winner's other answers (:mod:`search.records.predictions`),
in their metadata.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class OldAnswers:
    """Whether each of the N test images of an old task is told right.

    Attributes:
        before: (seeds, N) with the backbone untouched, as each training found it: the same images, the same head.
        after: (seeds, N) with the backbone as each training left it.
    """

    before: Bits
    after: Bits

    def __post_init__(self) -> None:
        if self.before.ndim != 2 or self.before.shape != self.after.shape or not self.before.size:
            raise ValueError(
                f"expected two (seeds, N) arrays over the same images, received {self.before.shape} and "
                f"{self.after.shape}"
            )

    @classmethod
    def of(cls, packed: Sequence[tuple[str, str]]) -> OldAnswers:
        """From rows as :func:`pack` makes them, before and after, of each training."""
        before, after = zip(*packed, strict=True)
        return cls(np.stack([unpack(row) for row in before]), np.stack([unpack(row) for row in after]))

    def to_json(self) -> dict[str, list[str]]:
        """JSON values that :meth:`from_json` reads back."""
        return {"before": [pack(row) for row in self.before], "after": [pack(row) for row in self.after]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> OldAnswers:
        """What :meth:`to_json` made; ValueError, KeyError or TypeError where it is something else."""
        return cls.of(list(zip(values["before"], values["after"], strict=True)))


def pack(right: Bits) -> str:
    """(N,) bits as text.

    >>> pack(np.array([True, False, True]))
    '3:oA=='
    """
    return f"{len(right)}:{base64.b64encode(np.packbits(right).tobytes()).decode()}"


def unpack(text: str) -> Bits:
    """What :func:`pack` made text of; ValueError where it is something else."""
    count, _, coded = text.partition(":")
    packed = np.frombuffer(base64.b64decode(coded, validate=True), np.uint8)
    if len(packed) != -(-int(count) // 8):
        raise ValueError(f"expected {count} bits, received {8 * len(packed)}")
    return np.unpackbits(packed, count=int(count)).astype(bool)
