"""Newly initialised weights that are a function of a seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from trainables.errors import BackboneError


@contextmanager
def seeded_initializers(seed: int) -> Iterator[None]:
    """Make Keras' initialisers that have no seed of their own a function of ``seed``, and nothing else."""
    state = random.getstate()
    random.seed(seed)  # Keras draws the default seed of an initialiser from this module
    try:
        yield
    finally:
        random.setstate(state)


def fresh_weights(model: Any, seed: int) -> list[np.ndarray]:
    """Weights for ``model`` as its initialisers make them, in the order of ``model.weights``.

    Each layer is made anew and built, so ``model`` itself stays as it is. Seeds that are fixed in the layers'
    configuration are ignored: another ``seed`` always means other weights.
    """
    fresh: dict[int, np.ndarray] = {}
    with seeded_initializers(seed):
        for layer in model.layers:
            fresh.update(_anew(layer))
    return [fresh[id(weight)] for weight in model.weights]


def _anew(layer: Any) -> dict[int, np.ndarray]:
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
