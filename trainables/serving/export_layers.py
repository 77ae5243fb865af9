"""Rewrites a served model with layers that other runtimes can run.

The antialiased resizing at its start is a single TensorFlow operation (ScaleAndTranslate), which neither TFLite nor
ONNX supports. Here it becomes two products with matrices that are computed from the size of the image at hand, so
that a converted model still accepts images of any size.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf


class MatrixResizing(keras.layers.Layer):  # type: ignore[misc]
    """Bilinear antialiased resizing to (H, W), equal to ``keras.layers.Resizing``, as matrix products.

    Each output pixel is the mean of input pixels weighted by a triangle as wide as two output pixels (two input
    pixels if the image is enlarged). (N, h, w, C) float32 → (N, H, W, C).
    """

    def __init__(self, height: int, width: int, **options: Any) -> None:
        super().__init__(**options)
        self.height, self.width = height, width

    def call(self, images: Any) -> Any:
        """Resize along the rows, then along the columns."""
        channels = images.shape[-1]
        shape = tf.shape(images)
        count, height, width = shape[0], shape[1], shape[2]
        rows = tf.reshape(images, tf.stack([count, height, width * channels]))
        rows = tf.matmul(_triangles(height, self.height)[None], rows)
        columns = tf.reshape(rows, tf.stack([count, self.height, width, channels]))
        resized = tf.matmul(_triangles(width, self.width)[None, None], columns)
        return tf.ensure_shape(resized, (None, self.height, self.width, channels))

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return (N, H, W, C)."""
        return (input_shape[0], self.height, self.width, input_shape[-1])


def as_inference_model(model: Any) -> Any:
    """Return ``model``, sharing its weights, so that a plain call runs it in inference mode.

    Exported functions do not pass ``training``, and the ``Resizing`` layer of Keras 3.15 passes ``training=True`` to
    the layers above it: an export would apply dropout.
    """
    inputs = keras.Input(model.input_shape[1:], dtype=model.inputs[0].dtype, name="images")
    made = keras.Model(inputs, model(inputs, training=False), name="unfreeze")
    made.trainable = False
    return made


def as_convertible_model(model: Any) -> Any:
    """Return :func:`as_inference_model` of ``model`` with layers that TFLite and ONNX can run, also in nested models.

    Antialiased ``Resizing`` becomes matrix products. ``Normalization`` becomes ``Rescaling``, because converters to
    ONNX take its statistics for inputs.
    """
    return as_inference_model(
        keras.models.clone_model(model, clone_function=_convertible_layer, recursive=True)
    )


def _convertible_layer(layer: Any) -> Any:
    """Return ``layer`` itself with its weights, or its replacement."""
    if type(layer) is keras.layers.Normalization and not layer.invert:
        deviation = np.maximum(np.sqrt(np.ravel(layer.variance)), keras.config.epsilon())
        scale, offset = 1.0 / deviation, -np.ravel(layer.mean) / deviation
        return keras.layers.Rescaling(scale.tolist(), offset.tolist(), name=layer.name)
    if type(layer) is not keras.layers.Resizing or layer.interpolation != "bilinear" or not layer.antialias:
        return layer
    if layer.crop_to_aspect_ratio or layer.pad_to_aspect_ratio:
        return layer
    return MatrixResizing(layer.height, layer.width, name=layer.name)


def _triangles(size: Any, wanted: int) -> Any:
    """Return the weights (wanted, size) of ``size`` input pixels for each output pixel; each row sums to 1."""
    scale = tf.cast(size, tf.float32) / wanted
    centres = (tf.range(wanted, dtype=tf.float32) + 0.5) * scale
    pixels = tf.cast(tf.range(size), tf.float32) + 0.5
    weights = tf.maximum(0.0, 1.0 - tf.abs(pixels[None, :] - centres[:, None]) / tf.maximum(scale, 1.0))
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)
