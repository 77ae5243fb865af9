"""The trainable copy of a backbone's top blocks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras

from trainables.backbones.backbone import Backbone
from trainables.backbones.cuts import find_cuts
from trainables.backbones.graph import find_operations


def block_models(backbone: Backbone, suffix: Any, depth: int) -> list[Any]:
    """``suffix``, a copy of the top ``depth`` blocks of ``backbone``, in parts: a model a block, bottom first.

    They share their layers with ``suffix``.
    """
    edges = _edges(backbone, suffix, depth)
    return [keras.Model(below, above, name=f"block_{i}") for i, (below, above) in enumerate(pairwise(edges))]


def blocks_of(variables: Sequence[Any], backbone: Backbone, suffix: Any, depth: int) -> list[int]:
    """Which block each of the Keras ``variables`` of ``suffix`` belongs to, counted from the bottom one."""
    owners = {
        id(weight): i
        for i, (below, above) in enumerate(pairwise(_edges(backbone, suffix, depth)))
        for operation in find_operations([below], [above])
        for weight in getattr(operation, "weights", ())
    }
    return [owners[id(variable)] for variable in variables]


def _edges(backbone: Backbone, suffix: Any, depth: int) -> list[Any]:
    """Where blocks begin in a copy of the top ones, whose cuts are those of the backbone, and where the last ends."""
    starts, cuts = backbone.starts[len(backbone.blocks) - depth :], find_cuts(suffix)
    return [*(cuts[start - starts[0]].tensor for start in starts), suffix.outputs[0]]


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
