"""Converts any image model to one form: raw RGB pixels 0..255 → preprocessing → blocks → pooled features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from trainables.backbones.cuts import find_features, find_segments
from trainables.backbones.graph import find_operations, name_uniquely, replay
from trainables.backbones.keras_internals import tensor_origin
from trainables.errors import BackboneError
from trainables.modalities.image.backbone_sources import BackboneSource
from trainables.modalities.image.preprocessing import constant_normalization, preprocess, to_channels

DEFAULT_SIZE = 224
"""Height and width in pixels for a model that takes images of any size."""

_RESIZERS = ("Resizing", "CenterCrop", "RandomCrop")


def normalise(source: BackboneSource, size: int | None) -> Any:
    """Build a flat functional model with the weights of ``source``.

    Nested models are opened, the classifier head and an initial resizing are removed, layers that Keras named are
    numbered anew, and every layer is trainable.

    Args:
        source: the model as it was found.
        size: height and width of the input in pixels. None takes the size of the initial resizing, otherwise the static
            input size of the model, otherwise :data:`DEFAULT_SIZE`.

    Returns:
        A Keras model from float32 (N, H, W, 3), raw pixels 0..255, to pooled features (N, C).

    Raises:
        BackboneError: there is nothing to train below the head, or the network does not accept this size.
    """
    model = source.model
    _make_trainable(model)
    native = keras.Input(model.inputs[0].shape[1:])
    features = find_features(native, replay(model.inputs, model.outputs, [native], {})[0])
    swap, target = _input_operations(native, features)
    height, width = (size, size) if size else target or _static(native) or (DEFAULT_SIZE, DEFAULT_SIZE)
    image = keras.Input((height, width, 3), name="image")
    pixels = to_channels(preprocess(image, source.preprocessing), native.shape[3])
    try:
        (pooled,) = replay([native], [features], [pixels], swap)
    except (ValueError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BackboneError(
            f"backbone {source.name}: it can't take images of {height}x{width} pixels ({reason}); "
            "expected another --input-size"
        ) from error
    name_uniquely([tensor_origin(image).operation, *find_operations([image], [pooled])])
    return keras.Model(image, pooled, name="backbone")


def _make_trainable(model: Any) -> None:
    """Make every layer trainable; a file may contain frozen ones."""
    for operation in find_operations(model.inputs, model.outputs):
        if isinstance(operation, keras.Layer):
            # Keras ignores a value that is already set, and would leave the layers inside a wrapper as they are.
            operation.trainable = False
            operation.trainable = True


def _input_operations(
    native: Any, features: Any
) -> tuple[dict[int, Callable[..., Any]], tuple[int, int] | None]:
    """Return the operations to replace (resizing, and layers with adapted statistics), and the size resized to."""
    swap: dict[int, Callable[..., Any]] = {
        id(operation): constant_normalization(operation)
        for operation in find_operations([native], [features])
        if isinstance(operation, keras.layers.Normalization) and operation.weights
    }
    size = None
    for segment in find_segments(native, features):
        if segment.has_kernel:
            break
        if segment.single_call is not None and segment.single_call.kind in _RESIZERS:
            layer = segment.single_call.operation
            swap[id(layer)] = _identity
            size = (int(layer.height), int(layer.width))
    return swap, size


def _identity(pixels: Any) -> Any:
    return pixels


def _static(image: Any) -> tuple[int, int] | None:
    height, width = image.shape[1:3]
    return (int(height), int(width)) if height and width else None
