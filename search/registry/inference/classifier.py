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
"""Number of parts, one per thread, in which a batch is decoded."""

PREFETCHED_BATCHES = 3
"""Number of batches that are decoded while the model predicts one."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image: its path and the probability of each class, or the error if it cannot be read."""

    path: str
    probabilities: tuple[float, ...] = ()
    error: str | None = None

    def top(self, classes: Sequence[str]) -> tuple[str, float]:
        """Return the most probable class and its probability."""
        index = max(range(len(self.probabilities)), key=self.probabilities.__getitem__)
        return classes[index], self.probabilities[index]


@dataclass(frozen=True)
class _Batch:
    """A batch that is being decoded: the path of each image, and futures of its pixels or of an error message."""

    paths: list[str]
    parts: list[Future[list[np.ndarray | str]]]

    def decoded(self) -> list[np.ndarray | str]:
        return [image for part in self.parts for image in part.result()]


@dataclass(frozen=True)
class Classifier:
    """A model from the registry, with the names of its classes."""

    model: Any
    classes: tuple[str, ...]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) to which the model resizes its input. Images are decoded to this size, as they were in training."""
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
        """Yield predictions in the order of ``images``.

        The next batches are decoded in threads while the model predicts one.

        Args:
            images: (path, encoded image) pairs.
            batch_size: number of images per call of the model.
        """
        from trainables.modalities.image.decoding import available_cores

        size, coming, waiting = self.image_size, iter(images), deque[_Batch]()
        pool = ThreadPoolExecutor(available_cores(), "decode")
        try:
            while (batch := _next(coming, batch_size, size, pool)) or waiting:
                if batch:
                    waiting.append(batch)
                if batch is None or len(waiting) > PREFETCHED_BATCHES:
                    yield from self._predictions(waiting.popleft())
        finally:
            # The consumer may stop early (Ctrl-C, a closed pipe): do not decode what nobody reads.
            pool.shutdown(cancel_futures=True)

    def _predictions(self, batch: _Batch) -> Iterator[Prediction]:
        import numpy as np

        decoded = batch.decoded()
        readable = [image for image in decoded if not isinstance(image, str)]
        predictions = (
            np.asarray(self.model.predict_on_batch(np.stack(readable))) if readable else np.empty((0, 0))
        )
        rows = iter(predictions.tolist())
        for path, image in zip(batch.paths, decoded, strict=True):
            if isinstance(image, str):
                yield Prediction(path, error=image)
            else:
                yield Prediction(path, tuple(next(rows)))


def load_classifier(model_uri: str, tracking_uri: str) -> Classifier:
    """Load the model at ``model_uri`` (such as ``models:/NAME@ALIAS``) from the store at ``tracking_uri``.

    Raises:
        TrackingError: there is no such model, or it was not registered by this program.
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
    """Start to decode the next batch; return None when there are no more images."""
    pairs = list(islice(images, batch_size))
    # Round up, so that there are at most DECODING_PARTS parts.
    step = -(-len(pairs) // DECODING_PARTS)
    parts = [pairs[start : start + step] for start in range(0, len(pairs), step or 1)]
    futures = [pool.submit(_decode, [image for _, image in part], size) for part in parts]
    return _Batch([path for path, _ in pairs], futures) if pairs else None


def _decode(images: Sequence[Encoded], size: tuple[int, int]) -> list[np.ndarray | str]:
    from trainables.modalities.image.images import decode_image

    found: list[np.ndarray | str] = []
    for image in images:
        try:
            found.append(decode_image(image, size))
        except DataError as error:
            found.append(str(error))
    return found
