"""The head of a classifier: from the pooled features of a backbone to class scores."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class Head:
    """A linear head, or one hidden ReLU layer of ``units`` in front of it.

    Args:
        features: width of the pooled features.
        units: width of the hidden layer; 0 for a linear head.
        classes: number of classes.
    """

    def __init__(self, features: int, units: int, classes: int) -> None:
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="relu", name="head_hidden") if units else None
        self.scores = keras.layers.Dense(classes, name="head_scores")
        if self.hidden is not None:
            self.hidden.build((None, features))
        self.scores.build((None, units or features))

    @property
    def layers(self) -> list[Any]:
        """Its Keras layers, bottom first."""
        return [self.scores] if self.hidden is None else [self.hidden, self.scores]

    @property
    def variables(self) -> list[Any]:
        """Kernels and biases, bottom first."""
        return [v for layer in self.layers for v in layer.trainable_variables]

    def __call__(self, features: Any, dropout: Any = None, seed: Any = None) -> Any:
        """Return class scores (B, classes) before softmax of features (B, C).

        Args:
            features: of the pooled backbone.
            dropout: rate at the inputs of the last layer; a tensor, so that one compiled step serves every rate.
            seed: (2,) int32, from which the dropout mask is drawn; None for inference.
        """
        x = features if self.hidden is None else self.hidden(features)
        if seed is not None:
            keep = tf.random.stateless_uniform(tf.shape(x), seed) >= dropout
            x = tf.where(keep, x / (1.0 - dropout), 0.0)
        return self.scores(x)


def head_shapes(features: int, units: int, classes: int) -> list[tuple[int, ...]]:
    """Return the shapes of a head's kernels and biases, bottom first; ``units`` is 0 for a linear head."""
    widths = [features, *([units] if units else []), classes]
    return [shape for i, o in pairwise(widths) for shape in ((i, o), (o,))]


def initial_weights(shapes: Sequence[tuple[int, ...]], seed: int) -> list[np.ndarray]:
    """Return Glorot-uniform kernels and zero biases of ``shapes``, float32, a function of ``seed`` alone."""
    weights = []
    for index, shape in enumerate(shapes):
        if len(shape) == 1:
            weights.append(np.zeros(shape, np.float32))
            continue
        fan_in, fan_out = shape
        limit = np.sqrt(6.0 / (fan_in + fan_out))
        # The constant separates these numbers from other draws with the seed of the same trial.
        generator = np.random.default_rng([seed, index, 0x6EAD])
        weights.append(generator.uniform(-limit, limit, shape).astype(np.float32))
    return weights
