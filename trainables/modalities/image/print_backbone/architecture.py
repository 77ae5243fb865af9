"""Defines the network of the built-in backbone: four small convolution stages, each at half the resolution."""

from __future__ import annotations

from typing import Any

import keras

INPUT_SIZE = 32
"""Height and width of the input, in pixels, that the shipped weights were trained at."""
WIDTHS = (24, 48, 72, 112)
"""Channels of the four stages; the last one is the number of features."""
MOMENTUM = 0.9
"""Momentum of the BatchNorm statistics: they settle within a few dozen steps, which is all that a small task has."""


def build(widths: tuple[int, ...] = WIDTHS, *, seed: int = 0) -> Any:
    """Build the network with random weights: (N, 32, 32, 3) float32 raw pixels 0..255 → (N, C) float32.

    Each stage consists of a 3×3 convolution, BatchNorm, ReLU and max pooling by 2; the last one ends with the mean over
    the image instead. Between two stages only one tensor is live: ``stage1_pool`` and so on.
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
