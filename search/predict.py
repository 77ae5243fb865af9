"""Classify images with a registered model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from search.stores import absolute_uri
from trainables.errors import DataError, TrackingError
from trainables.inputs.source import Encoded

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Prediction:
    """One image: where it came from, and the probability of each class; or why it can't be read."""

    path: str
    probabilities: tuple[float, ...] = ()
    error: str | None = None

    def top(self, classes: Sequence[str]) -> tuple[str, float]:
        """The most probable class and its probability."""
        index = max(range(len(self.probabilities)), key=self.probabilities.__getitem__)
        return classes[index], self.probabilities[index]


@dataclass(frozen=True)
class Classifier:
    """A model from the registry with the names of its classes."""

    model: Any
    classes: tuple[str, ...]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) to which the model resizes its input: images are decoded to it, as they were in training."""
        resizing = [layer for layer in self.model.layers if type(layer).__name__ == "Resizing"]
        if resizing:
            return int(resizing[0].height), int(resizing[0].width)
        height, width = self.model.input_shape[1:3]
        if height is None or width is None:
            raise TrackingError(
                f"model: expected an image size in its input, received {self.model.input_shape}"
            )
        return int(height), int(width)

    def predict(self, images: Iterable[tuple[str, Encoded]], batch_size: int = 64) -> Iterator[Prediction]:
        """Predictions in the order of ``images``, ``batch_size`` at a time."""
        size = self.image_size
        waiting = iter(images)
        with ThreadPoolExecutor() as pool:
            while chunk := list(islice(waiting, batch_size)):
                decoded = list(pool.map(lambda pair: _decode(pair[1], size), chunk))
                yield from self._batch([path for path, _ in chunk], decoded)

    def _batch(self, paths: list[str], decoded: list[np.ndarray | str]) -> Iterator[Prediction]:
        import numpy as np

        readable = [image for image in decoded if not isinstance(image, str)]
        rows = iter(np.asarray(self.model.predict_on_batch(np.stack(readable))) if readable else ())
        for path, image in zip(paths, decoded, strict=True):
            if isinstance(image, str):
                yield Prediction(path, error=image)
            else:
                yield Prediction(path, tuple(float(p) for p in next(rows)))


def load_classifier(model_uri: str, tracking_uri: str) -> Classifier:
    """The model at ``model_uri`` (``models:/NAME@ALIAS``) of the store at ``tracking_uri``.

    Raises:
        TrackingError: no such model, or none of this program's.
    """
    from search.mlflow_client import global_store, speaking
    from search.registry import class_names

    import mlflow.keras  # isort: skip

    classes = class_names(model_uri, tracking_uri)
    with global_store(absolute_uri(tracking_uri)), speaking(tracking_uri):
        return Classifier(mlflow.keras.load_model(model_uri), classes)


def _decode(encoded: Encoded, size: tuple[int, int]) -> np.ndarray | str:
    from trainables.images import decode_image

    try:
        return decode_image(encoded, size)
    except DataError as error:
        return str(error)
