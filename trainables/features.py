"""Where the features of a classifier end and its head begins.

The head begins at the first point of the trunk where the image's extent is gone: a global pooling, a
flattening, the choice of one token. What follows is dropped, except a normalisation of the pooled features,
which belongs to them (ConvNeXt). Networks that have no such point are pooled at their end; a plain perceptron
loses its last Dense layer.
"""

from __future__ import annotations

from typing import Any

import keras

from trainables.backbones.cuts import Segment, find_segments
from trainables.errors import BackboneError

_POOLS = {
    "GlobalAveragePooling2D": keras.layers.GlobalAveragePooling2D,
    "GlobalMaxPooling2D": keras.layers.GlobalMaxPooling2D,
}


def find_features(source: Any, target: Any) -> Any:
    """The features (N, C) of the graph that leads from image ``source`` to ``target``, its head left out.

    Raises:
        BackboneError: no layer with weights would be left below the head, or the output is no picture, no
            sequence and no vector.
    """
    segments = find_segments(source, target)
    trained = False
    for position, segment in enumerate(segments):
        if trained and _loses_extent(segment):
            return _extend(_pool(segment), segments[position + 1 :], segment.above.tensor)
        trained = trained or segment.has_kernel
    return _pool_end(segments, target)


def _loses_extent(segment: Segment) -> bool:
    below, above = len(segment.below.shape), len(segment.above.shape)
    return (above == 1 and below > 1) or (segment.only is not None and segment.only.kind in _POOLS)


def _pool(segment: Segment) -> Any:
    below, only = segment.below, segment.only
    pool = only.kind if only is not None else ""
    if len(below.shape) == 3:
        if pool in _POOLS and len(segment.above.shape) == 1:
            return segment.above.tensor
        return _POOLS.get(pool, keras.layers.GlobalAveragePooling2D)()(below.tensor)
    if pool == "Flatten":
        return keras.layers.GlobalAveragePooling1D()(below.tensor)
    return segment.above.tensor


def _extend(features: Any, rest: tuple[Segment, ...], pooled: Any) -> Any:
    if features is not pooled:
        return features
    for segment in rest:
        if segment.only is None or not segment.only.kind.endswith("Normalization"):
            break
        features = segment.above.tensor
    return features


def _pool_end(segments: tuple[Segment, ...], target: Any) -> Any:
    if len(target.shape) == 4:
        return keras.layers.GlobalAveragePooling2D()(target)
    if len(target.shape) == 3:
        return keras.layers.GlobalAveragePooling1D()(target)
    if len(target.shape) != 2:
        raise BackboneError(
            f"backbone: expected features of rank 2 to 4, received shape {tuple(target.shape)}"
        )
    dense = [i for i, s in enumerate(segments) if s.only is not None and s.only.kind == "Dense"]
    last = dense[-1] if dense else len(segments)
    if not any(segment.has_kernel for segment in segments[:last]):
        raise BackboneError("backbone: expected layers with weights below the classifier head, found none")
    return segments[last].below.tensor if dense else target
