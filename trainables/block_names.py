"""Names for blocks, taken from the names that the architecture's author gave its layers."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.backbones.cuts import Segment, has_kernel
from trainables.backbones.graph import has_own_name


def name_blocks(blocks: Sequence[Sequence[Segment]]) -> list[str]:
    """One name a block, all different: ``conv4_block2``, ``mixed7``, …

    What the names of its layers have in common, if no layer of another block begins so; else the name of its
    last layer; ``block3`` for a block of nameless layers. Independent of what the process built before.
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
