"""Copies networks so that their layers compute in another precision, with the same weights."""

from __future__ import annotations

from typing import Any

import keras

from trainables.backbones.backbone import Backbone
from trainables.backbones.graph import find_operations

FLOAT_POLICIES = ("float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
"""Dtype policies that can replace each other."""


def recast_backbone(backbone: Backbone, policy: str) -> Backbone:
    """Return a copy of ``backbone`` under a Keras dtype ``policy``, with the same cuts and blocks.

    The result is ``backbone`` itself if it has this policy already. Preprocessing keeps its precision, because 16
    bits are too few for pixels.
    """
    model, first = backbone.model, backbone.blocks[0].cut.tensor
    # Everything below the first block is preprocessing.
    below = {id(operation) for operation in find_operations(model.inputs, [first])}
    if all(layer.dtype_policy.name == policy for layer in model.layers if id(layer) not in below):
        return backbone
    copy = recast(model, policy, below)
    return Backbone(backbone.spec, backbone.name, backbone.weights, copy, backbone.starts)


def recast(model: Any, policy: str, keep: set[int] | None = None) -> Any:
    """Return a copy of a functional ``model`` with its own weights and all layers under the dtype ``policy``.

    Layers whose id is in ``keep`` are copied unchanged. Weights are float32 under every mixed policy.
    """

    def copied(layer: Any) -> Any:
        config = layer.get_config()
        return type(layer).from_config(config if keep and id(layer) in keep else _renamed(config, policy))

    copy = keras.models.clone_model(model, clone_function=copied)
    copy.set_weights(model.get_weights())
    return copy


def _renamed(config: Any, policy: str) -> Any:
    """Return ``config`` with ``policy`` in place of every floating-point policy, including those of wrapped layers."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy" and config["config"]["name"] in FLOAT_POLICIES:
            return {**config, "config": {"name": policy}}
        return {key: _renamed(value, policy) for key, value in config.items()}
    return [_renamed(item, policy) for item in config] if isinstance(config, list) else config
