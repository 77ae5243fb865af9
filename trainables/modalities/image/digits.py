"""The built-in dataset: scikit-learn's 1,797 handwritten digits with a fixed split.

There are ten training and twenty validation images per class; the other 1,497 images are for the test. The images have
8 x 8 pixels of 17 shades, white ink on black, written by 43 people (E. Alpaydin and C. Kaynak, UCI, 1998).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainables.data.inputs.source import SPLITS, Encoded, Listing
from trainables.modalities.image.images import decode_image

TRAIN_PER_CLASS = 10
VALIDATION_PER_CLASS = 20
CLASSES = tuple("0123456789")
MAX_PIXEL_VALUE = 16
"""Pixels are integers from 0 to this value."""

KEY_SIZE = (32, 32)
"""(H, W) in pixels of the images whose digests are the keys: the input size of the built-in backbone.

At this size the order of the images is the one that earlier versions gave them."""


class DigitsSource:
    """scikit-learn's digits as a :class:`trainables.data.inputs.source.DataSource`."""

    place = "scikit-learn's handwritten digits"

    def fingerprint(self) -> str:
        return f"scikit-learn {version('scikit-learn')}"

    def listing(self) -> Listing:
        labels: NDArray[np.int64] = self._data.target.astype(np.int64)
        ids = [f"digits#{row}" for row in range(len(labels))]
        return Listing(ids, labels, _fixed_split(labels), CLASSES)

    def images(self) -> Iterator[Encoded | None]:
        return self._encoded()

    def keys(self) -> Sequence[bytes]:
        # Not the bytes of the PNG files, which depend on the version of zlib.
        return [hashlib.sha256(decode_image(image, KEY_SIZE).tobytes()).digest() for image in self._encoded()]

    def _encoded(self) -> Iterator[bytes]:
        for pixels in self._data.images:
            file = io.BytesIO()
            Image.fromarray(np.rint(pixels * (255 / MAX_PIXEL_VALUE)).astype(np.uint8)).save(file, "png")
            yield file.getvalue()

    @cached_property
    def _data(self) -> Any:
        from sklearn.datasets import load_digits

        return load_digits()


def _fixed_split(labels: NDArray[np.int64]) -> NDArray[np.int8]:
    """Return (N,) indices into SPLITS, the same for every version of NumPy.

    The data is sorted by writer, so it has to be shuffled. A hash does that, because random generators may change.
    """
    order = sorted(range(len(labels)), key=lambda row: hashlib.sha256(f"digits {row}".encode()).digest())
    splits = np.full(len(labels), SPLITS.index("test"), dtype=np.int8)
    for label in range(10):
        rows = [row for row in order if labels[row] == label]
        splits[rows[:TRAIN_PER_CLASS]] = SPLITS.index("train")
        splits[rows[TRAIN_PER_CLASS : TRAIN_PER_CLASS + VALIDATION_PER_CLASS]] = SPLITS.index("validation")
    return splits
