"""Describe a trial's parameters in plain phrases."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from search.config.parameters import CORE_PARAMETERS
from search.records.record import Parameters, ParameterValue
from search.report.analysis.wording import format_number, format_parameter, label


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
        # Only the first phrase starts a sentence on the page.
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


_TAUGHT = {"plain": "the teacher's outputs", "relational": "the teacher's relations between images"}

_KEPT = {
    "ewc": "elastic weight consolidation",
    "lwf": "learning without forgetting",
    "rehearsal": "rehearsal",
}

_PHRASES: Mapping[str, Callable[[ParameterValue], str]] = {
    "backbone": lambda name: f"backbone {format_number(name)}",
    "learning_rate": lambda rate: f"learning rate {format_parameter('learning_rate', rate)}",
    "backbone_lr_ratio": lambda ratio: f"the backbone at {format_number(ratio)} times the learning rate",
    "head_units": _head,
    "augmentation_strength": _unless_zero("augmentation"),
    "head_init": lambda init: (
        "a head initialised by a linear probe" if init == "probe" else "a randomly initialised head"
    ),
    "horizontal_flip": lambda flip: "with horizontal flips" if flip else "no horizontal flips",
    "weight_decay": _unless_zero("weight decay"),
    "dropout": _unless_zero("dropout"),
    "label_smoothing": _unless_zero("label smoothing"),
    "l2sp": _unless_zero("L2-SP penalty"),
    "layer_lr_decay": lambda decay: (
        "the same rate for all blocks"
        if decay == 1
        else f"each block at {format_number(decay)} times the rate of the block above"
    ),
    "distillation": lambda kind: (
        "distilled from outputs and relations"
        if kind == "both"
        else f"distilled from {_TAUGHT.get(str(kind), kind)}"
    ),
    "distill_weight": lambda weight: f"teacher weight {format_number(weight)}",
    "distill_temperature": lambda value: f"distillation temperature {format_number(value)}",
    "remembering": lambda how: f"the old task remembered by {_KEPT.get(str(how), how)}",
    "remember_weight": lambda weight: f"old-task weight {format_number(weight)}",
    "gradual_unfreezing": lambda share: (
        f"gradual unfreezing over {format_number(share)} of the epochs" if share else "no gradual unfreezing"
    ),
}
