"""Describe a trial's parameters in plain phrases."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from search.records.record import Parameters, ParameterValue
from search.report.analysis.wording import format_number, format_parameter, label

CORE_PARAMETERS = ("unfreeze_depth", "learning_rate", "head_units", "augmentation_strength")
"""The parameters of the core space."""


def describe_parameters(params: Parameters, blocks: int) -> tuple[list[str], list[str]]:
    """Return phrases for the core parameters, and phrases for all others.

    For example ``Unfreeze the top 2 of 4 blocks``, ``learning rate 1.2e-3``, ``a head of 64 units``, ``augmentation
    0.5``.

    Args:
        params: the parameters.
        blocks: the backbone's number of blocks.
    """
    main = [_phrase(name, params[name], blocks) for name in CORE_PARAMETERS if name in params]
    more = [_phrase(name, value, blocks) for name, value in params.items() if name not in CORE_PARAMETERS]
    for phrases in (main, more):
        phrases[:1] = [first[:1].upper() + first[1:] for first in phrases[:1]]
    return main, more


def _phrase(name: str, value: ParameterValue, blocks: int) -> str:
    if name == "unfreeze_depth":
        return _depth(value, blocks)
    return _PHRASES[name](value) if name in _PHRASES else f"{label(name)} {format_number(value)}"


def _depth(depth: ParameterValue, blocks: int) -> str:
    if depth == 0:
        return "keep the backbone frozen, train the head alone"
    if depth == blocks:
        return f"unfreeze all {blocks} blocks"
    return (
        f"unfreeze the top {depth} of {blocks} blocks"
        if depth != 1
        else f"unfreeze the top of {blocks} blocks"
    )


def _head(units: ParameterValue) -> str:
    return "a linear head" if units == 0 else f"a head of {format_number(units)} units"


def _unless_zero(what: str) -> Callable[[ParameterValue], str]:
    return lambda value: f"no {what}" if value == 0 else f"{what} {format_number(value)}"


_TAUGHT = {"plain": "the teacher's answers", "relational": "the relations that the teacher sees"}

_KEPT = {
    "ewc": "elastic weight consolidation",
    "lwf": "learning without forgetting",
    "rehearsal": "rehearsal",
}

_PHRASES: Mapping[str, Callable[[ParameterValue], str]] = {
    "backbone": lambda name: f"backbone {format_number(name)}",
    "learning_rate": lambda rate: f"learning rate {format_parameter('learning_rate', rate)}",
    "backbone_lr_ratio": lambda ratio: f"the backbone at {format_number(ratio)} of the learning rate",
    "head_units": _head,
    "augmentation_strength": _unless_zero("augmentation"),
    "head_init": lambda init: (
        "a head that begins as a probe" if init == "probe" else "a head from random weights"
    ),
    "horizontal_flip": lambda flip: "with mirror images" if flip else "no mirror images",
    "weight_decay": _unless_zero("weight decay"),
    "dropout": _unless_zero("dropout"),
    "label_smoothing": _unless_zero("label smoothing"),
    "l2sp": _unless_zero("pull to the pretrained weights"),
    "layer_lr_decay": lambda decay: (
        "one rate for all blocks"
        if decay == 1
        else f"each block at {format_number(decay)} of the rate of the one above"
    ),
    "distillation": lambda kind: (
        "taught by answers and relations" if kind == "both" else f"taught by {_TAUGHT.get(str(kind), kind)}"
    ),
    "distill_weight": lambda weight: f"the teacher counts {format_number(weight)} times",
    "distill_temperature": lambda value: f"answers softened at {format_number(value)}",
    "remembering": lambda how: f"the old task kept by {_KEPT.get(str(how), how)}",
    "remember_weight": lambda weight: f"the old task counts {format_number(weight)} times",
    "gradual_unfreezing": lambda share: (
        f"blocks that join one by one in {format_number(share)} of the epochs"
        if share
        else "all blocks from the start"
    ),
}
