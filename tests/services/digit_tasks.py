"""Tasks and small backbones from scikit-learn's digits, for tests of transfer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

VALIDATION = 20
"""Validation images per class."""


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 8, 8) uint8 and digits (N,)."""
    data = load_digits()
    return np.rint(data.images * (255 / 16)).astype(np.uint8), data.target


def few_labels(file: Path, classes: Sequence[int], labels: int) -> Path:
    """Write a Parquet file of ``classes`` with ``labels`` training images per class. Most images are test images."""
    images, of = digits()
    rows: list[int] = []
    splits: list[str] = []
    for digit in classes:
        found = np.flatnonzero(of == digit)
        rows += found.tolist()
        left = len(found) - labels - VALIDATION
        splits += ["train"] * labels + ["validation"] * VALIDATION + ["test"] * left
    content = {"image": [_png(images[r]) for r in rows], "label": [str(of[r]) for r in rows], "split": splits}
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(content), file)
    return file


def dense_classifier(
    file: Path, classes: Sequence[int], epochs: int, widths: Sequence[int] = (32, 32), seed: int = 0
) -> Path:
    """Train a small dense network on all images of ``classes`` and save it with its head."""
    import keras

    images, of = digits()
    chosen = np.isin(of, classes)
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    for width in widths:
        x = keras.layers.Dense(width, activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(len(classes))(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    pixels = np.repeat(images[chosen][..., None], 3, axis=-1).astype(np.float32)
    model.fit(pixels, np.searchsorted(sorted(classes), of[chosen]), batch_size=64, epochs=epochs, verbose=0)
    file.parent.mkdir(parents=True, exist_ok=True)
    model.save(file)
    return file


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG")
    return buffer.getvalue()
