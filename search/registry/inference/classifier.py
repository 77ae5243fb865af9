"""Classify images with a registered model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from search.tracking.stores import absolute_uri
from trainables.data.inputs.source import Encoded
from trainables.errors import DataError, TrackingError

if TYPE_CHECKING:
    import numpy as np

DECODING_PARTS = 4
"""A batch is decoded in so many parts, each by a thread."""

PREFETCHED_BATCHES = 3
"""Batches that are being decoded while the model has one."""


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
class _Batch:
    """Images on their way: where each came from, and its pixels to come, or why it can't be read."""

    paths: list[str]
    parts: list[Future[list[np.ndarray | str]]]

    def decoded(self) -> list[np.ndarray | str]:
        return [image for part in self.parts for image in part.result()]


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
        """Predictions in the order of ``images``, ``batch_size`` at a time; the next ones are decoded meanwhile."""
        from trainables.modalities.image.decoding import available_cores

        size, coming, waiting = self.image_size, iter(images), deque[_Batch]()
        pool = ThreadPoolExecutor(available_cores(), "decode")
        try:
            while (batch := _next(coming, batch_size, size, pool)) or waiting:
                if batch:
                    waiting.append(batch)
                if batch is None or len(waiting) > PREFETCHED_BATCHES:
                    yield from self._answers(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _answers(self, batch: _Batch) -> Iterator[Prediction]:
        import numpy as np

        decoded = batch.decoded()
        readable = [image for image in decoded if not isinstance(image, str)]
        answers = (
            np.asarray(self.model.predict_on_batch(np.stack(readable))) if readable else np.empty((0, 0))
        )
        rows = iter(answers.tolist())
        for path, image in zip(batch.paths, decoded, strict=True):
            if isinstance(image, str):
                yield Prediction(path, error=image)
            else:
                yield Prediction(path, tuple(next(rows)))


def load_classifier(model_uri: str, tracking_uri: str) -> Classifier:
    """The model at ``model_uri`` (``models:/NAME@ALIAS``) of the store at ``tracking_uri``.

    Raises:
        TrackingError: no such model, or none of this program's.
    """
    from search.registry import class_names
    from search.tracking.client import translate_errors, use_store

    import mlflow.keras  # isort: skip

    classes = class_names(model_uri, tracking_uri)
    with use_store(absolute_uri(tracking_uri)), translate_errors(tracking_uri):
        return Classifier(mlflow.keras.load_model(model_uri), classes)


def _next(
    images: Iterator[tuple[str, Encoded]], batch_size: int, size: tuple[int, int], pool: ThreadPoolExecutor
) -> _Batch | None:
    """The next images, which the pool begins to decode; None when there are no more."""
    pairs = list(islice(images, batch_size))
    step = -(-len(pairs) // DECODING_PARTS)
    parts = [pairs[start : start + step] for start in range(0, len(pairs), step or 1)]
    asked = [pool.submit(_decode, [image for _, image in part], size) for part in parts]
    return _Batch([path for path, _ in pairs], asked) if pairs else None


def _decode(images: Sequence[Encoded], size: tuple[int, int]) -> list[np.ndarray | str]:
    from trainables.modalities.image.images import decode_image

    found: list[np.ndarray | str] = []
    for image in images:
        try:
            found.append(decode_image(image, size))
        except DataError as error:
            found.append(str(error))
    return found
