"""Builds the model for production: raw images in, probabilities out, loadable without code of ours."""

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
        A functional Keras model from uint8 images (N, H, W, 3) of any size, which it resizes to the backbone's input
        size, to float32 probabilities (N, classes). It computes in float32, whatever precision it was trained in.
    """
    bench, program = training.bench, training.program
    # The program holds the weights of the last epoch, and the best epoch may be an earlier one.
    program.write(training.best_weights)
    return assemble_served_model(bench.backbone.input_size, program.prefix, program.suffix, program.head)


def assemble_served_model(input_size: tuple[int, int], prefix: Any, suffix: Any | None, head: Head) -> Any:
    """Assemble the model of :func:`build_served_model` from its parts.

    Args:
        input_size: (H, W) of the backbone, in pixels.
        prefix: model from pixels to the tensor at a cut, or to features.
        suffix: model from that tensor to features; None if the prefix is the whole backbone.
        head: the trained head.
    """
    height, width = input_size
    inputs = keras.Input((None, None, 3), dtype="uint8", name="images")
    x = keras.layers.Rescaling(1.0, name="to_float")(inputs)
    resize = keras.layers.Resizing(height, width, interpolation="bilinear", antialias=True, name="resize")
    # The default of Resizing is training=True, which Keras 3.15 passes on to every layer above it: a plain call of the
    # model, unlike predict, would apply dropout. With training=False the layers above inherit inference mode.
    x = resize(x, training=False)
    x = prefix(x)
    if suffix is not None:
        x = suffix(x)
    for layer in head.layers:
        x = layer(x)
    outputs = keras.layers.Softmax(name="probabilities")(x)
    shared = keras.Model(inputs, outputs, name="unfreeze")
    # The copy has weights of its own: the layers of ``shared`` belong to the program, which another trial may
    # use next.
    own = recast(shared, "float32")
    own.trainable = False
    return own


def save_served_model(training: Training, path: Path) -> None:
    """Save :func:`build_served_model` as a ``.keras`` file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    build_served_model(training).save(path)
