"""Count the operations of a forward pass below each depth with TensorFlow's profiler, and bound the gain of caching."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainables.backbones.backbone import Backbone
from trainables.backbones.spec import BackboneSpec
from trainables.modalities.image.backbones import load


def shares_below(file: Path, depths: Iterable[int]) -> dict[int, float]:
    """Share of the backbone's operations below the cut of each depth: 1 at depth 0, 0 if nothing is frozen."""
    backbone = load(BackboneSpec(str(file)))
    whole = operations(backbone.model)
    return {depth: _below(backbone, depth) / whole for depth in set(depths)}


def operations(model: Any) -> int:
    """Floating point operations of ``model`` for one image."""
    import tensorflow as tf
    from tensorflow.compat.v1.profiler import ProfileOptionBuilder, profile

    shape = [1, *model.inputs[0].shape[1:]]
    function = tf.function(lambda x: model(x, training=False))
    graph = function.get_concrete_function(tf.TensorSpec(shape, tf.float32)).graph
    options = ProfileOptionBuilder(ProfileOptionBuilder.float_operation()).with_empty_output().build()
    return int(profile(graph, options=options).total_float_ops)


def ceiling(shares: Iterable[float], epochs: int, sharing: bool, heads: float = 0.0, views: int = 1) -> float:
    """Largest speed-up that caching alone can give to trials that freeze ``shares`` (p) of the operations.

    The cost of an epoch is 3 if everything trains (forward, and twice that backward). If p is frozen, it is 3 − 2p
    without a cache and 3(1 − p) with one, plus p once for each of the ``views``; ``heads`` (h) is the cost of a head.
    Each trial therefore gains (3 − 2p + h) / (3(1 − p) + h + p·V/E), and all of them together the ratio of the sums.
    With ``sharing``, each view passes through the prefix once for all trials, up to the highest cut that one needs.
    """
    known = list(shares)
    without = sum(3 - 2 * p + heads for p in known)
    suffixes = sum(3 * (1 - p) + heads for p in known)
    prefixes = max(known, default=0.0) if sharing else sum(known)
    return without / (suffixes + prefixes * views / epochs)


def _below(backbone: Backbone, depth: int) -> int:
    return operations(backbone.parts(depth)[0])
