"""Write scikit-learn's handwritten digits for all contenders: an image folder and a file of arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Counts:
    """Number of images of each split, less than 1,797 in total."""

    train: int = 600
    validation: int = 150
    test: int = 150


def write_digit_images(
    folder: Path, arrays: Path, size: int, counts: Counts, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Write the same images as PNG files ``folder/SPLIT/CLASS/NUMBER.png`` and as ``arrays`` (``.npz``).

    The images are RGB with ``size`` × ``size`` pixels, drawn at random from all digits. The arrays are called
    ``train_images`` (N, size, size, 3) uint8, ``train_labels`` (N,) int32, and so on. Returns images and labels of the
    digits that are in no split.
    """
    data = load_digits()
    order = iter(np.random.default_rng(seed).permutation(len(data.target)))
    kept: dict[str, np.ndarray] = {}
    for split in SPLITS:
        rows = [next(order) for _ in range(getattr(counts, split))]
        images = [_enlarged(data.images[row], size) for row in rows]
        for row, image in zip(rows, images, strict=True):
            place = folder / split / str(data.target[row])
            place.mkdir(parents=True, exist_ok=True)
            image.save(place / f"{row:04d}.png")
        kept[f"{split}_images"] = _stacked(images)
        kept[f"{split}_labels"] = data.target[rows].astype(np.int32)
    np.savez(arrays, **kept)
    rest = list(order)
    return _stacked([_enlarged(data.images[row], size) for row in rest]), data.target[rest].astype(np.int32)


def _stacked(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images])


def _enlarged(pixels: np.ndarray, size: int) -> Image.Image:
    grey = Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8))
    return grey.resize((size, size), Image.Resampling.BILINEAR).convert("RGB")
