"""Cuts: the points of a graph where exactly one tensor is live.

Everything below a cut (the prefix) and everything above it (the suffix) can run apart. Such a tensor lies on
every path from input to output, so the list of cuts is a property of the graph, not of the order in which it
is walked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trainables.backbones.graph import Call, Key, calls, key


@dataclass(frozen=True)
class Cut:
    """A tensor that alone is live; ``name`` is the operation that makes it, ``shape`` lacks the batch."""

    name: str
    shape: tuple[int | None, ...]
    tensor: Any = field(repr=False, compare=False)


@dataclass(frozen=True)
class Segment:
    """What lies between two neighbouring cuts, ``below`` and ``above``: one call, or several that branch."""

    calls: tuple[Call, ...]
    below: Cut
    above: Cut

    @property
    def only(self) -> Call | None:
        """The segment's call, if it is just one."""
        return self.calls[0] if len(self.calls) == 1 else None

    @property
    def has_kernel(self) -> bool:
        """Whether it holds a convolution, a matrix or the like: more than factors and offsets per channel."""
        return any(has_kernel(call) for call in self.calls)


def has_kernel(call: Call) -> bool:
    """Whether the called operation has a trainable weight of two dimensions or more (PReLU's aside)."""
    variables = getattr(call.operation, "trainable_variables", ())
    return call.kind != "PReLU" and any(len(variable.shape) > 1 for variable in variables)


def find_segments(source: Any, target: Any) -> tuple[Segment, ...]:
    """The graph from tensor ``source`` to tensor ``target`` as a chain of segments, input first."""
    ordered = calls([source], [target])
    waiting = Counter(key(t) for call in ordered for t in _distinct(call.inputs))
    waiting[key(target)] += 1
    live: dict[Key, Any] = {key(source): source}
    below, passed, found = _cut(source), list[Call](), list[Segment]()
    for call in ordered:
        passed.append(call)
        for tensor in _distinct(call.inputs):
            waiting[key(tensor)] -= 1
            if not waiting[key(tensor)]:
                live.pop(key(tensor))
        live.update((key(t), t) for t in call.outputs if waiting[key(t)])
        if len(live) == 1:
            above = _cut(next(iter(live.values())))
            found.append(Segment(tuple(passed), below, above))
            below, passed = above, []
    return tuple(found)


def find_cuts(model: Any) -> tuple[Cut, ...]:
    """All cuts of a functional ``model`` with one input and one output: first its input, last its output."""
    segments = find_segments(model.inputs[0], model.outputs[0])
    return (_cut(model.inputs[0]), *(segment.above for segment in segments))


def _distinct(tensors: Sequence[Any]) -> list[Any]:
    return list({key(t): t for t in tensors}.values())


def _cut(tensor: Any) -> Cut:
    return Cut(tensor._keras_history.operation.name, tuple(tensor.shape[1:]), tensor)
