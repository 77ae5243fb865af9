"""Computes a digest of a model from its weights and its graph, ignoring the names that a process gave to its layers."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

_IGNORED = ("name", "trainable", "build_config", "compile_config", "module", "registered_name")


def graph_digest(model: Any) -> str:
    """Return 16 hexadecimal digits of SHA-256 over the configuration and the weights of a functional ``model``.

    It is the same for a saved and reopened model, in every process, and whichever layers are trainable at the moment.
    """
    # The configuration first: models that share all weights can still compute different things.
    summary = hashlib.sha256(_canonical(model.get_config()).encode())
    for weight in model.weights:
        array = np.ascontiguousarray(weight.numpy())
        summary.update(f"{array.dtype}{array.shape}".encode())
        summary.update(array.reshape(-1).view(np.uint8).data)
    return summary.hexdigest()[:16]


def _canonical(config: dict[str, Any]) -> str:
    position = {layer["config"]["name"]: index for index, layer in enumerate(config["layers"])}
    layers = [
        [layer["class_name"], _scrub(layer["config"]), _relink(layer["inbound_nodes"], position)]
        for layer in config["layers"]
    ]
    return json.dumps(layers, sort_keys=True)


def _scrub(value: Any) -> Any:
    """Return ``value`` without names, except those of dtypes, which change the computation."""
    if isinstance(value, dict):
        dtype = value.get("class_name") == "DTypePolicy"
        return {k: v if dtype else _scrub(v) for k, v in value.items() if dtype or k not in _IGNORED}
    return [_scrub(item) for item in value] if isinstance(value, (list, tuple)) else value


def _relink(value: Any, position: dict[str, int]) -> Any:
    """Return ``value`` with the numbers of layers in place of their names."""
    if isinstance(value, dict):
        if "keras_history" in value:
            name, *rest = value["keras_history"]
            return [position[name], *rest, value["shape"], value["dtype"]]
        return {k: _relink(v, position) for k, v in value.items() if k not in ("name", "module")}
    return [_relink(item, position) for item in value] if isinstance(value, (list, tuple)) else value
