"""Serve a Keras classifier for image files and for arrays of pixels.

A copy of this file is stored in the folder ``images`` of every registered model, where MLflow loads it by its name
(``_load_pyfunc``). It must run without unfreeze: it imports keras, numpy, pillow and mlflow only. For inputs that it
cannot read it raises an error that MLflow's server answers with status 400.
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
"""Number of images of one size that the model predicts at a time."""

NAMED = "named"
"""Parameter of a request: return the probabilities by class name instead of by position."""

_KINDS = {"i": "whole numbers", "u": "whole numbers", "f": "fractions", "U": "text", "b": "truth values"}
_EXPECTED = "expected an array of whole numbers 0..255, (height, width, 3), or an image file in base64"


class ServedImages:
    """A Keras classifier of raw pixels that takes images of any size, encoded or not, mixed in one request."""

    def __init__(self, model: Any, classes: Sequence[str]) -> None:
        self._model = model
        self._classes = list(classes)
        # MLflow's server answers requests in several threads.
        self._lock = threading.Lock()
        # Traces the predict function now, so that the first request does not have to wait for it.
        self._predict(np.zeros((1, 32, 32, 3), np.uint8))

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """Return probabilities (N, classes) of N images, or a table with one column per class.

        Args:
            data: the images alone, or in the form in which MLflow passes them on: a mapping or a table with one
                column.
            params: parameters of the request; with ``named`` the answer is a table.

        Raises:
            MlflowException: an image has another form; the message says which image, what was expected and what was
                received.
        """
        images = [_pixels(value, number) for number, value in enumerate(_values(data))]
        if not images:
            raise _refusal("inputs: expected at least one image, received none")
        predictions = np.empty((len(images), len(self._classes)), np.float32)
        for rows in _same_size_batches(images):
            predictions[rows] = self._predict(np.stack([images[row] for row in rows]))
        if not (params or {}).get(NAMED):
            return predictions
        import pandas as pd

        return pd.DataFrame(predictions, columns=self._classes)

    def _predict(self, pixels: Any) -> Any:
        # Keras creates the predict function in the first call, which is not thread-safe.
        with self._lock:
            return np.asarray(self._model.predict_on_batch(pixels))


def _load_pyfunc(path: str, model_config: dict[str, Any]) -> ServedImages:
    """Load the model; MLflow calls this with the Keras file and the ``model_config`` of the MLmodel file."""
    import keras

    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    return ServedImages(model, model_config["classes"])


def _values(data: Any) -> Sequence[Any]:
    """Return the images of a request, each as it was sent."""
    if isinstance(data, dict):
        data = next(iter(data.values()))
    elif hasattr(data, "columns"):  # a table of pandas
        data = data[data.columns[0]].tolist()
    # A string is a sequence, too: without this check, each of its characters would be an image.
    if isinstance(data, str | bytes):
        return [data]
    if isinstance(data, np.ndarray):
        if data.ndim == 0:
            return [data.item()]
        return list(data) if data.dtype == np.uint8 else list(data.tolist())
    return list(data)


def _pixels(value: Any, number: int) -> np.ndarray:
    """Return one image as uint8 (H, W, 3)."""
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
    """Decode base64 in the standard or the URL-safe alphabet, also as a ``data:`` URL."""
    body = text.partition(",")[2] if text.startswith("data:") else text
    # Clients wrap base64 into lines, use the URL-safe alphabet, or omit the padding: accept all of them.
    plain = "".join(body.split()).replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        raise _refusal(
            f"image {number}: {_EXPECTED}; received text that is not base64: {text[:40]!r}"
        ) from None


def _decoded(content: bytes, number: int) -> np.ndarray:
    """Decode an image file: apply its EXIF orientation, put transparency on white, scale 16-bit grey to 8 bits."""
    if not content:
        raise _refusal(f"image {number}: {_EXPECTED}; received an empty one")
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            # Pillow only warns above this limit and raises above twice of it: a small file may decode to gigabytes.
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
        # Round to nearest: 65535 / 257 = 255. Pillow's own conversion would clip at 255.
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
    """Return all formats that Pillow reads except EPS, which is a program that Ghostscript would execute."""
    Image.init()
    return tuple(name for name in Image.ID if name != "EPS")


def _same_size_batches(images: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Yield the indices of images of one size, at most :data:`BATCH` at a time."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for row, image in enumerate(images):
        sizes.setdefault(image.shape, []).append(row)
    for rows in sizes.values():
        for start in range(0, len(rows), BATCH):
            yield rows[start : start + BATCH]


def _refusal(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
