"""Groups the segments between the cuts of a graph into blocks, the units of ``unfreeze_depth``, and names them.

A *unit* is the smallest part worth unfreezing on its own: a residual or inception block (a segment with branches), or a
convolution with the normalisation, activation and pooling that follow it. Units are formed from the shape of the graph
alone, never from the input size or the name of a layer:

- normalisation after a merge opens the next unit (ResNetV2, DenseNet), and so does padding;
- a depthwise convolution and a squeeze-and-excite gate stay with the projection that follows them;
- a tensor with more channels than both its neighbours is no boundary (expansion before a linear bottleneck);
- in a plain chain the units up to a pooling are one unit (the five stages of VGG);
- a boundary never separates two calls of one layer.

If there are more than ``MAX_BLOCKS`` units, those of the longest stages are grouped into runs of equal length as far as
possible. A stage is the part between two reductions of the image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

from trainables.backbones.cuts import Segment, has_kernel
from trainables.backbones.graph import has_own_name


def name_blocks(blocks: Sequence[Sequence[Segment]]) -> list[str]:
    """Name the blocks after the names that the author of the architecture gave to their layers.

    A name is what the names of a block's layers have in common, unless a layer of another block begins like that;
    otherwise the name of its last layer; otherwise ``block3`` and so on. Names are unique (``conv4_block2``,
    ``mixed7``) and do not depend on what the process built before.
    """
    layers = [_layer_names(block) for block in blocks]
    chosen: list[str] = []
    for number, own in enumerate(layers, start=1):
        others = [name for names in layers if names is not own for name in names]
        shared = _shared_words(own)
        if any(f"{name}_".startswith(f"{shared}_") for name in others):
            shared = ""
        last = own[-1] if own else ""
        candidates = (shared, last, f"block{number}", f"block{number}_{last}")
        chosen.append(next(name for name in candidates if name and name not in chosen))
    return chosen


def _layer_names(block: Sequence[Segment]) -> list[str]:
    calls = [c for segment in block for c in segment.calls if has_own_name(c.operation)]
    kernels = [c.operation.name for c in calls if has_kernel(c)]
    return kernels or [c.operation.name for c in calls]


def _shared_words(names: Sequence[str]) -> str:
    shared: list[str] = []
    for words in zip(*(name.split("_") for name in names), strict=False):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    return "_".join(shared).strip("_")


MAX_BLOCKS = 20
"""Largest number of blocks."""

_PADDING = ("ZeroPadding", "Cropping", "UpSampling", "Pad")
_POOLING = ("MaxPooling", "AveragePooling")


@dataclass(frozen=True)
class Unit:
    """Neighbouring segments that are unfrozen together, bottom to top.

    Attributes:
        segments: the segments.
        joins_above: the unit belongs to the one above it.
        joins_below: the unit belongs to the one below it.
        merges: branches meet in it.
        pooled: it ends with a pooling.
        strided: the image gets smaller inside it, before its top.
    """

    segments: tuple[Segment, ...]
    joins_above: bool
    joins_below: bool
    merges: bool
    pooled: bool
    strided: bool

    def __add__(self, above: Unit) -> Unit:
        """Return both units as one."""
        segments = self.segments + above.segments
        merges, strided = self.merges or above.merges, self.strided or above.strided
        return Unit(segments, above.joins_above, self.joins_below, merges, above.pooled, strided)

    @property
    def channels(self) -> tuple[int, int]:
        """The sizes of the last axis of the tensors below and above."""
        return self.segments[0].below.shape[-1] or 0, self.segments[-1].above.shape[-1] or 0


def find_blocks(segments: Sequence[Segment], max_blocks: int = MAX_BLOCKS) -> tuple[tuple[Segment, ...], ...]:
    """Group ``segments`` into at most ``max_blocks`` blocks, bottom to top; each contains a kernel.

    Segments below the first block (preprocessing) belong to no block; those above the last kernel belong to the last
    block. Without any kernel there is no block.
    """
    units = _units(segments)
    # The order matters: gates are attached first, so that the later rules see the widths of complete units.
    for together in (_is_loose, _is_expansion, _leads_to_pooling, _parts_a_layer):
        units = _merge(units, together)
    return tuple(unit.segments for unit in _group(units, max_blocks))


def _units(segments: Sequence[Segment]) -> list[Unit]:
    """Return one unit for each segment with a kernel."""
    kernels = [i for i, segment in enumerate(segments) if segment.has_kernel]
    if not kernels:
        return []
    starts = [_opening(segments, 0, kernels[0], merged=True)]
    for kernel, following in pairwise(kernels):
        starts.append(_opening(segments, kernel + 1, following, _merges(segments[kernel])))
    ends = [*starts[1:], len(segments)]
    return [_unit(segments, *place) for place in zip(starts, kernels, ends, strict=True)]


def _opening(segments: Sequence[Segment], first: int, kernel: int, merged: bool) -> int:
    """Return which of the segments from ``first`` to ``kernel`` opens the unit of ``kernel``."""
    opening = first
    for index in range(first, kernel):
        segment = segments[index]
        # After a merge the next layer with weights, a normalisation, belongs to the following unit (pre-activation).
        if merged and any(getattr(call.operation, "trainable_variables", ()) for call in segment.calls):
            break
        if segment.single_call is None or not segment.single_call.kind.startswith(_PADDING):
            opening = index + 1
    return opening


def _unit(segments: Sequence[Segment], start: int, kernel: int, end: int) -> Unit:
    own = segments[kernel]
    # Branches that end in a multiplication scale the main path (squeeze-and-excite); alone they compute no features.
    gate = own.single_call is None and not _merges(own)
    return Unit(
        tuple(segments[start:end]),
        joins_above=gate or (own.single_call is not None and own.single_call.kind.startswith("Depthwise")),
        joins_below=gate,
        merges=_merges(own),
        pooled=any(
            s.single_call is not None and s.single_call.kind.startswith(_POOLING)
            for s in segments[kernel + 1 : end]
        ),
        strided=any(_stride(call.operation) > 1 for call in own.calls),
    )


def _merges(segment: Segment) -> bool:
    """Whether branches meet in the segment, other than to scale one by the other (squeeze-and-excite)."""
    return segment.single_call is None and segment.calls[-1].kind != "Multiply"


def _stride(operation: Any) -> int:
    # Keras stores strides as a number or as a tuple, depending on the layer.
    strides = getattr(operation, "strides", None) or 1
    return max(strides) if isinstance(strides, (tuple, list)) else int(strides)


def _merge(units: list[Unit], together: Callable[[list[Unit], int], bool]) -> list[Unit]:
    """Join units ``i`` and ``i + 1`` wherever ``together(units, i)``."""
    merged = units[:1]
    for below, unit in enumerate(units[1:]):
        if together(units, below):
            merged[-1] = merged[-1] + unit
        else:
            merged.append(unit)
    return merged


def _is_loose(units: list[Unit], below: int) -> bool:
    return units[below].joins_above or units[below + 1].joins_below


def _is_expansion(units: list[Unit], below: int) -> bool:
    # Cutting at the wide tensor would make activations several times larger than at the bottleneck.
    before, here = units[below].channels
    return here > before and here > units[below + 1].channels[1]


def _leads_to_pooling(units: list[Unit], below: int) -> bool:
    # Only plain chains: a merge on the way to the next pooling means that the network has blocks of its own.
    if units[below].pooled or units[below].merges:
        return False
    for unit in units[below + 1 :]:
        if unit.merges or unit.pooled:
            return not unit.merges
    return False


def _parts_a_layer(units: list[Unit], below: int) -> bool:
    def layers(some: list[Unit]) -> Counter[int]:
        called = (c.operation for unit in some for segment in unit.segments for c in segment.calls)
        return Counter(id(operation) for operation in called if getattr(operation, "weights", ()))

    # A layer that is called on both sides has one set of weights, which can't be frozen and trained at once.
    return bool(layers(units[: below + 1]) & layers(units[below + 1 :]))


def _group(units: list[Unit], max_blocks: int) -> list[Unit]:
    stages: list[list[Unit]] = []
    for unit in units:
        if not stages or unit.strided or stages[-1][-1].pooled:
            stages.append([])
        stages[-1].append(unit)
    # More stages than blocks: stage boundaries can't be kept, so all units form one run.
    if len(stages) > max_blocks:
        stages = [units]
    limit = max(map(len, stages), default=0)
    # Lowering a common limit shortens the longest stages first.
    while sum(min(len(stage), limit) for stage in stages) > max_blocks:
        limit -= 1
    return [reduce(add, run) for stage in stages for run in _runs(stage, min(len(stage), limit))]


def _runs(stage: list[Unit], count: int) -> list[list[Unit]]:
    bounds = [i * len(stage) // count for i in range(count + 1)]
    return [stage[low:high] for low, high in pairwise(bounds)]
