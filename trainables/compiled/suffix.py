"""Copies a backbone's top blocks for training, and finds which weights belong to which block."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras

from trainables.backbones.backbone import Backbone
from trainables.backbones.cuts import find_cuts
from trainables.backbones.graph import find_operations
from trainables.backbones.keras_internals import all_layers


def block_models(backbone: Backbone, suffix: Any, depth: int) -> list[Any]:
    """Split ``suffix``, a copy of the top ``depth`` blocks of ``backbone``, into one model a block, bottom first.

    The models share their layers with ``suffix``.
    """
    edges = _edges(backbone, suffix, depth)
    return [keras.Model(below, above, name=f"block_{i}") for i, (below, above) in enumerate(pairwise(edges))]


def block_indices(variables: Sequence[Any], backbone: Backbone, suffix: Any, depth: int) -> list[int]:
    """Return the block to which each of the Keras ``variables`` of ``suffix`` belongs, counted from the bottom one."""
    owners = {
        id(weight): i
        for i, (below, above) in enumerate(pairwise(_edges(backbone, suffix, depth)))
        for operation in find_operations([below], [above])
        for weight in getattr(operation, "weights", ())
    }
    return [owners[id(variable)] for variable in variables]


def _edges(backbone: Backbone, suffix: Any, depth: int) -> list[Any]:
    """Return the tensors between the blocks of ``suffix``, from its input to its output.

    A copy has tensors of its own, but the same cuts in the same order, so cuts are matched by their numbers.
    """
    starts, cuts = backbone.starts[len(backbone.blocks) - depth :], find_cuts(suffix)
    return [*(cuts[start - starts[0]].tensor for start in starts), suffix.outputs[0]]


def trainable_copy(suffix: Any, adapt: bool, momentum: float) -> Any:
    """Return a copy of ``suffix`` with weights of its own, so that training never touches the pretrained ones.

    Args:
        suffix: Keras model.
        adapt: BatchNorm uses and updates the statistics of the batch; otherwise it stays as it is.
        momentum: upper bound of the momentum of these statistics.
    """
    copy = keras.models.clone_model(suffix)
    # clone_model draws new weights.
    copy.set_weights(suffix.get_weights())
    copy.trainable = True
    for layer in all_layers(copy):
        if isinstance(layer, keras.layers.BatchNormalization):
            # In Keras a BatchNorm layer that is not trainable runs in inference mode even if called for training.
            layer.trainable = adapt
            # With Keras's 0.99 the statistics would need hundreds of steps to follow, more than a short trial has.
            layer.momentum = min(layer.momentum, momentum)
    return copy


def seed_variables(model: Any) -> list[Any]:
    """Return the states of the random generators inside ``model`` (dropout, stochastic depth); none for None."""
    if model is None:
        return []
    # Keras has no public list of the generators inside a model, but all their states end in this name.
    return [v for v in model.variables if v.path.endswith("seed_generator_state")]
