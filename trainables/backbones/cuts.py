"""Finds the cuts of a graph, the points where exactly one tensor is live, and the end of its features.

Everything below a cut (the prefix) and everything above it (the suffix) can run separately. The tensor of a cut lies
on every path from input to output, so the list of cuts is a property of the graph and does not depend on the order in
which it is traversed.

The classifier head begins at the first cut where the spatial extent is gone: a global pooling, a flattening, or the
choice of one token. Everything above is dropped, except a normalisation of the pooled features, which belongs to them
(ConvNeXt). Networks without such a point are pooled at their end; a plain perceptron loses its last Dense layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from trainables.backbones.graph import Call, TensorKey, find_calls, tensor_key
from trainables.backbones.keras_internals import tensor_origin
from trainables.errors import BackboneError


@dataclass(frozen=True)
class Cut:
    """A tensor that alone is live.

    Attributes:
        name: name of the operation that makes it.
        shape: its shape without the batch axis.
        tensor: the symbolic tensor.
    """

    name: str
    shape: tuple[int | None, ...]
    tensor: Any = field(repr=False, compare=False)


@dataclass(frozen=True)
class Segment:
    """The part of a graph between two neighbouring cuts: one call, or several with branches.

    Attributes:
        calls: its calls in topological order.
        below: the cut at its start.
        above: the cut at its end.
    """

    calls: tuple[Call, ...]
    below: Cut
    above: Cut

    @property
    def single_call(self) -> Call | None:
        """The call of the segment, if there is only one."""
        return self.calls[0] if len(self.calls) == 1 else None

    @property
    def has_kernel(self) -> bool:
        """Whether it contains a convolution, a matrix or the like: more than factors and offsets per channel."""
        return any(has_kernel(call) for call in self.calls)


def has_kernel(call: Call) -> bool:
    """Whether the called operation has a trainable weight of two or more dimensions, other than the slopes of PReLU."""
    variables = getattr(call.operation, "trainable_variables", ())
    return call.kind != "PReLU" and any(len(variable.shape) > 1 for variable in variables)


def find_segments(source: Any, target: Any) -> tuple[Segment, ...]:
    """Return the graph from tensor ``source`` to tensor ``target`` as a chain of segments, input first."""
    ordered = find_calls([source], [target])
    # How many calls still have to read each tensor; the target is read by the caller, once more.
    waiting = Counter(tensor_key(t) for call in ordered for t in _distinct(call.inputs))
    waiting[tensor_key(target)] += 1
    live: dict[TensorKey, Any] = {tensor_key(source): source}
    below, passed, found = _cut(source), list[Call](), list[Segment]()
    for call in ordered:
        passed.append(call)
        for tensor in _distinct(call.inputs):
            waiting[tensor_key(tensor)] -= 1
            if not waiting[tensor_key(tensor)]:
                live.pop(tensor_key(tensor))
        live.update((tensor_key(t), t) for t in call.outputs if waiting[tensor_key(t)])
        # One live tensor: everything that follows depends on what was computed so far through it alone.
        if len(live) == 1:
            above = _cut(next(iter(live.values())))
            found.append(Segment(tuple(passed), below, above))
            below, passed = above, []
    return tuple(found)


def find_cuts(model: Any) -> tuple[Cut, ...]:
    """Return all cuts of a functional ``model`` with one input and one output, from its input to its output."""
    segments = find_segments(model.inputs[0], model.outputs[0])
    return (_cut(model.inputs[0]), *(segment.above for segment in segments))


def _distinct(tensors: Sequence[Any]) -> list[Any]:
    return list({tensor_key(t): t for t in tensors}.values())


def _cut(tensor: Any) -> Cut:
    return Cut(tensor_origin(tensor).operation.name, tuple(tensor.shape[1:]), tensor)


_POOLS = {
    "GlobalAveragePooling2D": keras.layers.GlobalAveragePooling2D,
    "GlobalMaxPooling2D": keras.layers.GlobalMaxPooling2D,
}


def find_features(source: Any, target: Any) -> Any:
    """Return the features (N, C) of the graph from ``source`` to ``target``, without its classifier head.

    Raises:
        BackboneError: no layer with weights would remain below the head, or the output is no image, sequence or vector.
    """
    segments = find_segments(source, target)
    trained = False
    # A loss of extent before the first weights is no head but a reshaping of the input.
    for position, segment in enumerate(segments):
        if trained and _loses_extent(segment):
            return _extend(_pool(segment), segments[position + 1 :], segment.above.tensor)
        trained = trained or segment.has_kernel
    return _pool_end(segments, target)


def _loses_extent(segment: Segment) -> bool:
    below, above = len(segment.below.shape), len(segment.above.shape)
    return (above == 1 and below > 1) or (
        segment.single_call is not None and segment.single_call.kind in _POOLS
    )


def _pool(segment: Segment) -> Any:
    below, only = segment.below, segment.single_call
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
        if segment.single_call is None or not segment.single_call.kind.endswith("Normalization"):
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
    dense = [i for i, s in enumerate(segments) if s.single_call is not None and s.single_call.kind == "Dense"]
    last = dense[-1] if dense else len(segments)
    if not any(segment.has_kernel for segment in segments[:last]):
        raise BackboneError("backbone: expected layers with weights below the classifier head, found none")
    return segments[last].below.tensor if dense else target
