"""Adds preprocessing as layers of the graph: from raw pixels 0..255 to the values that a network was trained on.

The modes are those of ``keras.applications.imagenet_utils.preprocess_input``. All layers can be loaded in Keras' safe
mode; there are no Lambda layers.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from trainables.errors import BackboneError
from trainables.modalities.image.applications import PREPROCESSING_MODES

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)


def preprocess(pixels: Any, mode: str) -> Any:
    """Apply ``mode`` to symbolic ``pixels`` (N, H, W, 3), RGB, 0..255.

    Args:
        pixels: symbolic tensor.
        mode: ``none`` leaves the pixels as they are; ``unit`` scales to 0..1; ``tf`` scales to -1..1; ``torch`` scales
            to 0..1 and normalises by ImageNet's mean and standard deviation of each channel; ``caffe`` converts RGB to
            BGR and subtracts ImageNet's mean without scaling.

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
    raise BackboneError(f"preprocessing: expected auto, {', '.join(PREPROCESSING_MODES)}; received {mode!r}")


def to_channels(pixels: Any, channels: int) -> Any:
    """Convert RGB ``pixels`` (N, H, W, 3) to ``channels`` channels: 3 leaves them, 1 gives the luma (ITU-R 601).

    Raises:
        BackboneError: ``channels`` is another number.
    """
    if channels == 3:
        return pixels
    if channels == 1:
        return keras.ops.image.rgb_to_grayscale(pixels)
    raise BackboneError(
        f"backbone: expected a model of colour (3 channels) or grey (1) images, received {channels} channels"
    )


def constant_normalization(layer: Any) -> Any:
    """Return a Normalization layer like ``layer``, with its adapted statistics in the configuration.

    As weights the statistics would be lost in a copy, because Keras reads them only when a file is loaded.
    """
    return keras.layers.Normalization(
        axis=layer.axis,
        mean=layer.adapt_mean.numpy().tolist(),
        variance=layer.adapt_variance.numpy().tolist(),
        invert=layer.invert,
        name=layer.name,
    )


def correct_efficientnet(model: Any) -> None:
    """Correct the normalisation of an EfficientNet (first version) whose weights come from an ImageNet file.

    These files contain standard deviations in place of variances. ``keras.applications`` corrects that only when it
    downloads them itself (https://github.com/tensorflow/tensorflow/issues/49930). Other statistics are not changed.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            variance = layer.adapt_variance.numpy().reshape(-1)
            if variance.shape == (3,) and np.allclose(variance, _DEVIATION, atol=1e-3):
                layer.adapt_variance.assign(np.square(layer.adapt_variance.numpy()))
                layer.finalize_state()
