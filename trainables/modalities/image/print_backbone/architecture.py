"""The network of the built-in backbone: four small convolution stages, each half as wide in space."""

from __future__ import annotations

from typing import Any

import keras

INPUT_SIZE = 32
"""Side of the input image, pixels, that the shipped weights were trained at."""
WIDTHS = (24, 48, 72, 112)
"""Channels of the four stages; the last is the number of features."""
MOMENTUM = 0.9
"""Of the BatchNorm statistics: they settle within a few dozen steps, which is all that a small task has."""


def build(widths: tuple[int, ...] = WIDTHS, *, seed: int = 0) -> Any:
    """A functional Keras model with fresh weights: (N, 32, 32, 3) float32 raw pixels 0..255 → (N, C).

    Each stage is convolution 3×3, BatchNorm, ReLU and max pooling by 2, but for the last, which ends
    with the mean over the image. Between two stages one tensor is live: ``stage1_pool`` and so on.
    """
    inputs = keras.Input((INPUT_SIZE, INPUT_SIZE, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(inputs)
    for number, width in enumerate(widths, start=1):
        x = _stage(x, f"stage{number}", width, seed + number)
        if number < len(widths):
            x = keras.layers.MaxPooling2D(2, name=f"stage{number}_pool")(x)
    features = keras.layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, features, name="print")


def _stage(x: Any, name: str, width: int, seed: int) -> Any:
    initializer = keras.initializers.HeNormal(seed=seed)
    x = keras.layers.Conv2D(
        width, 3, padding="same", use_bias=False, kernel_initializer=initializer, name=f"{name}_conv"
    )(x)
    x = keras.layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
