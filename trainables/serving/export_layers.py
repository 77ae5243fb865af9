"""A served model with nothing in it that other runtimes lack.

The antialiased resizing at its start is one operation of TensorFlow (ScaleAndTranslate), which neither TFLite nor ONNX
has. Here it is two products with matrices that are made from the size of the image at hand, so that a converted model
takes images of any size, too.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf


class MatrixResizing(keras.layers.Layer):  # type: ignore[misc]
    """Bilinear resizing to (H, W), antialiased as in ``keras.layers.Resizing``: each output pixel is the mean of input
    pixels under a triangle as wide as two output pixels (two input pixels, where the image grows).

    (N, h, w, C) float32 → (N, H, W, C).
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
        """(N, H, W, C)."""
        return (input_shape[0], self.height, self.width, input_shape[-1])


def as_inference_model(model: Any) -> Any:
    """``model``, sharing its weights, that infers where it is called plainly.

    Exported functions don't say that they infer, and Keras 3.15's ``Resizing`` says that it trains, to the layers
    above it as well: an export would drop out.
    """
    inputs = keras.Input(model.input_shape[1:], dtype=model.inputs[0].dtype, name="images")
    made = keras.Model(inputs, model(inputs, training=False), name="unfreeze")
    made.trainable = False
    return made


def as_convertible_model(model: Any) -> Any:
    """:func:`as_inference_model` of ``model``, in nested models too with every antialiased ``Resizing`` layer
    written as matrix
    products, and every ``Normalization`` as ``Rescaling``: converters to ONNX take its statistics for inputs.
    """
    return as_inference_model(
        keras.models.clone_model(model, clone_function=_written_plainly, recursive=True)
    )


def _written_plainly(layer: Any) -> Any:
    """``layer`` itself, with its weights, unless it has to be written in another way."""
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
    """(wanted, size) weights of ``size`` input pixels for each output pixel; each row adds up to 1."""
    scale = tf.cast(size, tf.float32) / wanted
    centres = (tf.range(wanted, dtype=tf.float32) + 0.5) * scale
    pixels = tf.cast(tf.range(size), tf.float32) + 0.5
    weights = tf.maximum(0.0, 1.0 - tf.abs(pixels[None, :] - centres[:, None]) / tf.maximum(scale, 1.0))
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)
