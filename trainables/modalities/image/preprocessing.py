"""Preprocessing as layers of the graph: raw pixels 0..255 in, what a network was trained on out.

The modes are those of ``keras.applications.imagenet_utils.preprocess_input``; every layer serialises in
Keras' safe mode (no Lambda).
"""

from __future__ import annotations

from typing import Any, get_args

import keras
import numpy as np

from trainables.errors import BackboneError
from trainables.modalities.image.applications import Preprocessing

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)

MODES: tuple[Preprocessing, ...] = get_args(Preprocessing)


def preprocess(pixels: Any, mode: str) -> Any:
    """Apply ``mode`` to symbolic ``pixels`` (N, H, W, 3), RGB, 0..255.

    none: as they are. unit: to 0..1. tf: to -1..1. torch: to 0..1, then by ImageNet's mean and deviation of
    each channel. caffe: RGB to BGR, less ImageNet's mean, not scaled.

    Raises:
        BackboneError: there is no such mode.
    """
    if mode == "none":
        return pixels
    if mode == "unit":
        return keras.layers.Rescaling(1 / 255, name="preprocess_unit")(pixels)
    if mode == "tf":
        return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="preprocess_tf")(pixels)
    if mode == "torch":
        scale = [1 / (255 * deviation) for deviation in _DEVIATION]
        offset = [-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)]
        return keras.layers.Rescaling(scale, offset=offset, name="preprocess_torch")(pixels)
    if mode == "caffe":
        mirrored = keras.ops.flip(pixels, axis=-1)
        return keras.layers.Rescaling(1.0, offset=[-m for m in _CAFFE_MEAN], name="preprocess_caffe")(
            mirrored
        )
    raise BackboneError(f"preprocessing: expected auto, {', '.join(MODES)}; received {mode!r}")


def to_channels(pixels: Any, channels: int) -> Any:
    """RGB ``pixels`` (N, H, W, 3) as ``channels`` channels: 3 as they are, 1 as luma (ITU-R 601).

    Raises:
        BackboneError: any other number.
    """
    if channels == 3:
        return pixels
    if channels == 1:
        return keras.ops.image.rgb_to_grayscale(pixels)
    raise BackboneError(
        f"backbone: expected a model of colour (3 channels) or grey (1) images, received {channels} channels"
    )


def constant_normalization(layer: Any) -> Any:
    """A Normalization layer that does what ``layer`` was adapted to do, its statistics in its configuration.

    As weights they would be lost by a copy (Keras reads them once, when a file is loaded).
    """
    return keras.layers.Normalization(
        axis=layer.axis,
        mean=layer.adapt_mean.numpy().tolist(),
        variance=layer.adapt_variance.numpy().tolist(),
        invert=layer.invert,
        name=layer.name,
    )


def correct_efficientnet(model: Any) -> None:
    """Complete the normalisation of an EfficientNet (the first version) whose weights come from a file.

    The ImageNet files hold deviations where variances belong; ``keras.applications`` makes up for it only
    when it downloads them itself (tensorflow/tensorflow#49930). Other statistics stay as they are.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            variance = layer.adapt_variance.numpy().reshape(-1)
            if variance.shape == (3,) and np.allclose(variance, _DEVIATION, atol=1e-3):
                layer.adapt_variance.assign(np.square(layer.adapt_variance.numpy()))
                layer.finalize_state()
