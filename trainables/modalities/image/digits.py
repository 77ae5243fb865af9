"""scikit-learn's 1,797 handwritten digits, with a fixed split: few labels to learn from, many to test on.

Ten training and twenty validation images a class, the other 1,497 for the test. The images are 8 x 8 pixels
of 17 shades, white ink on black, by 43 people (E. Alpaydin and C. Kaynak, UCI, 1998).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainables.data.inputs.source import SPLITS, Encoded, Listing

TRAIN_PER_CLASS = 10
VALIDATION_PER_CLASS = 20
CLASSES = tuple("0123456789")
MAX_PIXEL_VALUE = 16
"""Pixels are whole numbers from 0 to this."""


class DigitsSource:
    """The built-in task."""

    place = "scikit-learn's handwritten digits"

    def fingerprint(self) -> str:
        return f"scikit-learn {version('scikit-learn')}"

    def listing(self) -> Listing:
        labels: NDArray[np.int64] = self._data.target.astype(np.int64)
        ids = [f"digits#{row}" for row in range(len(labels))]
        return Listing(ids, labels, _fixed_split(labels), CLASSES)

    def images(self) -> Iterator[Encoded | None]:
        for pixels in self._data.images:
            file = io.BytesIO()
            Image.fromarray(np.rint(pixels * (255 / MAX_PIXEL_VALUE)).astype(np.uint8)).save(file, "png")
            yield file.getvalue()

    @cached_property
    def _data(self) -> Any:
        from sklearn.datasets import load_digits

        return load_digits()


def _fixed_split(labels: NDArray[np.int64]) -> NDArray[np.int8]:
    """Shuffled by a hash, since the data comes writer by writer and generators may change."""
    order = sorted(range(len(labels)), key=lambda row: hashlib.sha256(f"digits {row}".encode()).digest())
    splits = np.full(len(labels), SPLITS.index("test"), dtype=np.int8)
    for label in range(10):
        rows = [row for row in order if labels[row] == label]
        splits[rows[:TRAIN_PER_CLASS]] = SPLITS.index("train")
        splits[rows[TRAIN_PER_CLASS : TRAIN_PER_CLASS + VALIDATION_PER_CLASS]] = SPLITS.index("validation")
    return splits
