"""Train one configuration as Keras' guide to transfer learning and fine-tuning does; all peers use this.

The backbone is loaded from its file, its first layers are frozen by ``trainable = False``, it is called with
``training=False`` (so BatchNorm keeps its statistics whether frozen or not, as with ``--batch-norm frozen``), a head is
added, and ``compile`` and ``fit`` do the rest, on a ``tf.data`` pipeline.

These are the same as in unfreeze: Adam with one learning rate for head and backbone; linear warm-up over a tenth of the
steps, then cosine decay to zero; batches of the same size; metrics after every epoch.

These differ:

- Augmentation uses Keras' own layers (rotation ±40°·s, shifts, shear and zoom ±0.2·s, filled with the nearest pixel).
  Each layer resamples the image, anew in every epoch. unfreeze applies all in one step, from 8 fixed views. Keras
  shears about the corner of an image instead of its centre.
- The last batch of an epoch is smaller; unfreeze fills it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

WARMUP = 0.1


def build_model(
    config: Mapping[str, Any], file: str, frozen: Mapping[int, int], classes: int, steps: int
) -> Any:
    """A compiled model from raw pixels to probabilities, for ``steps`` training steps in total."""
    backbone = keras.models.load_model(file, compile=False)
    for layer in backbone.layers[: frozen[config["unfreeze_depth"]]]:
        layer.trainable = False
    inputs = keras.Input(backbone.input_shape[1:])
    x = backbone(inputs, training=False)
    if config["head_units"]:
        x = keras.layers.Dense(config["head_units"], activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(x))
    warm = max(1, round(WARMUP * steps))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm), warmup_target=config["learning_rate"], warmup_steps=warm
    )
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def training_data(images: np.ndarray, labels: np.ndarray, batch_size: int, strength: float, seed: int) -> Any:
    """Shuffled, augmented batches of ``images`` (N, H, W, 3)."""
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    data = data.shuffle(len(labels), seed=seed).batch(batch_size)
    if strength:
        augment = augmentation(strength)
        data = data.map(lambda x, y: (augment(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
    return data.prefetch(tf.data.AUTOTUNE)


def validation_data(images: np.ndarray, labels: np.ndarray, batch_size: int) -> Any:
    """Unchanged batches of ``images`` (N, H, W, 3)."""
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def augmentation(strength: float) -> Any:
    """Random rotation, shift, shear and zoom, scaled by ``strength``."""
    shift = 0.2 * strength
    return keras.Sequential(
        [
            keras.layers.RandomRotation(strength * 40 / 360, fill_mode="nearest"),
            keras.layers.RandomTranslation(shift, shift, fill_mode="nearest"),
            keras.layers.RandomShear(x_factor=shift, fill_mode="nearest"),
            keras.layers.RandomZoom(shift, shift, fill_mode="nearest"),
        ]
    )


def steps_of(images: int, batch_size: int, epochs: int) -> int:
    """Training steps of a complete trial."""
    return epochs * -(-images // batch_size)
