"""The trainable copy of a backbone's top blocks."""

from __future__ import annotations

from typing import Any

import keras


def trainable_copy(suffix: Any, adapt: bool, momentum: float) -> Any:
    """A copy of ``suffix`` with weights of its own, so that training never touches the pretrained ones.

    BatchNorm follows the data with at most ``momentum`` if it may ``adapt``; else it stays as it is.
    """
    copy = keras.models.clone_model(suffix)
    copy.set_weights(suffix.get_weights())
    copy.trainable = True
    for layer in _layers(copy):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = adapt
            layer.momentum = min(layer.momentum, momentum)
    return copy


def seed_variables(model: Any) -> list[Any]:
    """State of the random generators inside a model (dropout, stochastic depth)."""
    if model is None:
        return []
    return [v for v in model.variables if v.path.endswith("seed_generator_state")]


def _layers(model: Any) -> list[Any]:
    return list(model._flatten_layers(include_self=False, recursive=True))
