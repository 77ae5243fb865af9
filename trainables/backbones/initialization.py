"""Initialises weights as a function of a seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from trainables.errors import BackboneError


@contextmanager
def seeded_initializers(seed: int) -> Iterator[None]:
    """Make Keras initialisers without a seed of their own a function of ``seed``; nothing else is changed."""
    state = random.getstate()
    # Keras draws the default seed of an initialiser from the module ``random``.
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def fresh_weights(model: Any, seed: int) -> list[np.ndarray]:
    """Return newly initialised weights for ``model`` in the order of ``model.weights``.

    Each layer is created again and built, so ``model`` itself does not change. Seeds in the configuration of the
    layers are ignored: another ``seed`` always gives other weights.

    Raises:
        BackboneError: a layer can't be created again with weights of the same shapes.
    """
    fresh: dict[int, np.ndarray] = {}
    with seeded_initializers(seed):
        for layer in model.layers:
            fresh.update(_reinitialised(layer))
    return [fresh[id(weight)] for weight in model.weights]


def _reinitialised(layer: Any) -> dict[int, np.ndarray]:
    if not layer.weights:
        return {}
    copy = type(layer).from_config(_unseeded(layer.get_config()))
    copy.build_from_config(layer.get_build_config())
    old, new = [tuple(w.shape) for w in layer.weights], [tuple(w.shape) for w in copy.weights]
    if old != new:
        raise BackboneError(
            f"backbone: layer {layer.name!r} can't be initialised anew: "
            f"expected weights of shapes {old}, received {new}"
        )
    return {id(weight): made.numpy() for weight, made in zip(layer.weights, copy.weights, strict=True)}


def _unseeded(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: None if key == "seed" else _unseeded(value) for key, value in config.items()}
    return [_unseeded(item) for item in config] if isinstance(config, list) else config
