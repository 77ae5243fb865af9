"""The model that goes to production: raw images in, probabilities out, no custom code needed to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from trainables.backbones.precision import recast
from trainables.compiled.head import Head
from trainables.training.training import Training


def build_served_model(training: Training) -> Any:
    """Build the model of a trial's best epoch.

    Returns:
        A functional Keras model: uint8 images (N, H, W, 3) of any size, resized inside to the backbone's input
        size; out come float32 probabilities (N, classes). It computes in float32, however it was trained.
    """
    bench, program = training.bench, training.program
    program.write(training.best_weights)
    return assemble_served_model(bench.backbone.input_size, program.prefix, program.suffix, program.head)


def assemble_served_model(input_size: tuple[int, int], prefix: Any, suffix: Any | None, head: Head) -> Any:
    """The model of :func:`build_served_model`, made of a backbone in one or two parts for images of
    ``input_size`` (H, W).
    """
    height, width = input_size
    inputs = keras.Input((None, None, 3), dtype="uint8", name="images")
    x = keras.layers.Rescaling(1.0, name="to_float")(inputs)
    resize = keras.layers.Resizing(height, width, interpolation="bilinear", antialias=True, name="resize")
    # Resizing's own default is training=True, which Keras 3.15 hands on to every layer above it: a plain call of the
    # model, which is not predict, would drop out. Said here, inference is what the layers above inherit.
    x = resize(x, training=False)
    x = prefix(x)
    if suffix is not None:
        x = suffix(x)
    for layer in head.layers:
        x = layer(x)
    outputs = keras.layers.Softmax(name="probabilities")(x)
    shared = keras.Model(inputs, outputs, name="unfreeze")
    own = recast(shared, "float32")
    own.trainable = False
    return own


def save_served_model(training: Training, path: Path) -> None:
    """Save :func:`build_served_model` as a ``.keras`` file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    build_served_model(training).save(path)
