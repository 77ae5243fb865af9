"""Answers to files of images and to arrays of pixels: the code that travels in a registered model's folder ``images``.

MLflow loads it there by its name (``_load_pyfunc``), where unfreeze need not be installed: it takes keras, numpy,
pillow and mlflow. What it can't read it refuses by an error that MLflow's server answers with 400.
"""

from __future__ import annotations

import base64
import binascii
import io
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from PIL import Image, ImageOps

BATCH = 64
"""Images of one size that the model is given at a time."""

NAMED = "named"
"""Parameter of a request: answer with the probability of each class by its name, not by its place."""

_KINDS = {"i": "whole numbers", "u": "whole numbers", "f": "fractions", "U": "text", "b": "truth values"}
_EXPECTED = "expected an array of whole numbers 0..255, (height, width, 3), or an image file in base64"


class ServedImages:
    """A Keras classifier of raw pixels that takes images of any size, encoded or not, mixed in one request."""

    def __init__(self, model: Any, classes: Sequence[str]) -> None:
        self._model = model
        self._classes = list(classes)
        self._turn = threading.Lock()
        self._answer(
            np.zeros((1, 32, 32, 3), np.uint8)
        )  # traced now, so that the first request need not wait

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """Probabilities (N, classes) of N images; as a table with a column a class if ``params`` says ``named``.

        Args:
            data: images by themselves, or as MLflow hands them on: a mapping or a table with one column.

        Raises:
            MlflowException: an image is of another form; the message says which, what was expected and what came.
        """
        images = [_pixels(value, number) for number, value in enumerate(_values(data))]
        if not images:
            raise _refusal("inputs: expected at least one image, received none")
        answers = np.empty((len(images), len(self._classes)), np.float32)
        for rows in _alike(images):
            answers[rows] = self._answer(np.stack([images[row] for row in rows]))
        if not (params or {}).get(NAMED):
            return answers
        import pandas as pd

        return pd.DataFrame(answers, columns=self._classes)

    def _answer(self, pixels: Any) -> Any:
        with self._turn:  # a Keras model's predict function is made by its first call, and not twice at once
            return np.asarray(self._model.predict_on_batch(pixels))


def _load_pyfunc(path: str, model_config: dict[str, Any]) -> ServedImages:
    """Called by MLflow with the Keras file and what the MLmodel says besides: the names of the ``classes``."""
    import keras

    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    return ServedImages(model, model_config["classes"])


def _values(data: Any) -> Sequence[Any]:
    """The images of a request, each as it came."""
    if isinstance(data, dict):
        data = next(iter(data.values()))
    elif hasattr(data, "columns"):  # a table of pandas
        data = data[data.columns[0]].tolist()
    if isinstance(data, str | bytes):
        return [data]
    if isinstance(data, np.ndarray):
        if data.ndim == 0:
            return [data.item()]
        return list(data) if data.dtype == np.uint8 else list(data.tolist())
    return list(data)


def _pixels(value: Any, number: int) -> np.ndarray:
    """(H, W, 3) uint8 of one image."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, str):
        return _decoded(_bytes(value, number), number)
    if isinstance(value, bytes | bytearray | memoryview):
        return _decoded(bytes(value), number)
    try:
        array = np.asarray(value)
    except ValueError:
        raise _refusal(f"image {number}: {_EXPECTED}; received rows of different lengths") from None
    whole = array.dtype.kind in "iu" and array.size > 0
    if array.ndim != 3 or array.shape[-1] != 3 or not whole:
        raise _refusal(f"image {number}: {_EXPECTED}; received {_described(value, array)}")
    if array.dtype != np.uint8 and not 0 <= int(array.min()) <= int(array.max()) <= 255:
        raise _refusal(
            f"image {number}: {_EXPECTED}; received numbers from {int(array.min())} to {int(array.max())}"
        )
    return array.astype(np.uint8)


def _described(value: Any, array: np.ndarray) -> str:
    if array.ndim == 0:
        return "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
    kind = _KINDS.get(array.dtype.kind, "other values")
    return f"an array of {kind}, shape {array.shape}"


def _bytes(text: str, number: int) -> bytes:
    """What base64 ``text`` stands for: the standard alphabet or the one for addresses, also as a ``data:`` address."""
    body = text.partition(",")[2] if text.startswith("data:") else text
    plain = "".join(body.split()).replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        raise _refusal(
            f"image {number}: {_EXPECTED}; received text that is not base64: {text[:40]!r}"
        ) from None


def _decoded(content: bytes, number: int) -> np.ndarray:
    """Pixels of an image file: turned as its EXIF data says, transparency laid on white, 16-bit greys scaled down."""
    if not content:
        raise _refusal(f"image {number}: {_EXPECTED}; received an empty one")
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise _refusal(
                    f"image {number}: expected at most {limit:,} pixels, received {image.width} x {image.height}"
                )
            return np.asarray(_rgb(ImageOps.exif_transpose(image)))
    except MlflowException:
        raise
    except Exception as error:
        raise _refusal(
            f"image {number}: {_EXPECTED}; received {len(content):,} bytes that are no image that can be read "
            f"({type(error).__name__})"
        ) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a pixel")
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, (255, 255, 255, 255))
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB")
    return image.convert("RGB")


def _formats() -> tuple[str, ...]:
    """All that Pillow reads but EPS, which is a program that Ghostscript would run."""
    Image.init()
    return tuple(name for name in Image.ID if name != "EPS")


def _alike(images: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Indices of images of one size, :data:`BATCH` at most at a time."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for row, image in enumerate(images):
        sizes.setdefault(image.shape, []).append(row)
    for rows in sizes.values():
        for start in range(0, len(rows), BATCH):
            yield rows[start : start + BATCH]


def _refusal(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
