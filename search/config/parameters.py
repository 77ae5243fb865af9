"""The parameters that a search space may hold: kind, natural limits, and ranges in the built-in spaces.

A new parameter is one entry of :data:`PARAMETERS`. A trial suggests the parameters in the order of the entries, so a
parameter stands below the one that its ``when`` names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from search.config.choices import ALL_METHODS, METHODS
from search.config.ranges import Choice, FloatRange, IntRange, Range
from search.records.record import ParameterValue
from trainables.methods.parameter_values import (
    ALIGNMENT_LAYERS,
    ALIGNMENT_SCHEDULES,
    ALIGNMENTS,
    DISTILLATIONS,
    HEAD_INITS,
    REMEMBERINGS,
    WEIGHTINGS,
)

Kind = Literal["int", "float", "bool", "name"]

BACKBONE = "backbone"
DEPTH = "unfreeze_depth"

PRETRAINED_METHODS = tuple(
    name for name, method in METHODS.items() if method.transfers and not method.reference
)
"""Methods that train the top blocks of a pretrained backbone."""

OLD_TASK_PARAMETERS = ("remembering", "remember_weight")
"""Parameters of a search that has an old task to remember (``--remember``)."""


@dataclass(frozen=True)
class Parameter:
    """What is true of a parameter in every search space.

    Attributes:
        kind: type of its values. The values of a ``name`` are those of ``range`` and no others.
        description: what the parameter means.
        range: its values in the built-in spaces.
        minimum: smallest value that has a meaning, so that the best value may well lie there; None if there is none.
        maximum: largest value that has a meaning.
        minimum_excluded: whether ``minimum`` itself has no meaning, such as a learning rate of 0.
        maximum_excluded: whether ``maximum`` itself has no meaning.
        core: whether the ``core`` space holds it; the ``full`` space holds all parameters.
        methods: methods that use it; None stands for all.
        when: another parameter on which it depends. It is used where that one is above 0, or one of ``when_values``.
        when_values: values of ``when`` for which it is used, if they are not numbers.
        needs_target_labels: whether it is used only where the target has labels.
        default: value for spaces of the user's own that leave it out; with None, trials have no such parameter either.
    """

    kind: Kind
    description: str
    range: Range
    minimum: float | None = None
    maximum: float | None = None
    minimum_excluded: bool = False
    maximum_excluded: bool = False
    core: bool = False
    methods: tuple[str, ...] | None = None
    when: str | None = None
    when_values: tuple[str, ...] = ()
    needs_target_labels: bool = False
    default: ParameterValue | None = None

    def applies_to(self, method: str) -> bool:
        """Return whether ``method`` uses the parameter."""
        return self.methods is None or method in self.methods

    @property
    def condition(self) -> str:
        """What must hold for the parameter named by :attr:`when`, in words."""
        if self.when_values:
            return f"{self.when} is {' or '.join(self.when_values)}"
        return f"{self.when} is above 0"

    def condition_holds(self, value: object) -> bool:
        """Return whether the parameter is used where the one named by :attr:`when` has ``value``."""
        return value in self.when_values if self.when_values else bool(value)


PARAMETERS: Mapping[str, Parameter] = {
    "method": Parameter(
        "name",
        "how knowledge is transferred",
        Choice(tuple(name for name, method in METHODS.items() if method.searchable)),
        core=True,
        methods=(ALL_METHODS,),
    ),
    DEPTH: Parameter(
        "int",
        "number of blocks that train, counted from the top; 0 trains the head alone",
        IntRange(0, 0),  # up to the number of blocks: see parameters()
        minimum=0,
        core=True,
        methods=PRETRAINED_METHODS,
        default=0,
    ),
    "learning_rate": Parameter(
        "float",
        "learning rate of Adam after the warm-up",
        FloatRange(1e-4, 3e-2, log=True),
        minimum=0,
        maximum=10,
        minimum_excluded=True,
        core=True,
        default=1e-3,
    ),
    "head_units": Parameter(
        "int",
        "width of the head's hidden layer; 0 is a linear head",
        IntRange(0, 256, step=64),
        minimum=0,
        maximum=65_536,
        core=True,
        default=0,
    ),
    "augmentation_strength": Parameter(
        "float",
        "strength of rotation, shift, shear and zoom",
        FloatRange(0.0, 1.0, step=0.25),
        minimum=0,
        maximum=1,
        core=True,
        default=0.0,
    ),
    "weight_decay": Parameter(
        "float", "decoupled weight decay, as in AdamW", FloatRange(1e-6, 1e-2, log=True), minimum=0, maximum=1
    ),
    "dropout": Parameter(
        "float",
        "dropout rate in front of the last layer",
        FloatRange(0.0, 0.5),
        minimum=0,
        maximum=1,
        maximum_excluded=True,
    ),
    "label_smoothing": Parameter(
        "float",
        "smoothing of the training labels",
        FloatRange(0.0, 0.2),
        minimum=0,
        maximum=1,
        maximum_excluded=True,
    ),
    "backbone_lr_ratio": Parameter(
        "float",
        "learning rate of the backbone's blocks divided by that of the head",
        FloatRange(0.01, 1.0, log=True),
        minimum=0,
        maximum=1,
        minimum_excluded=True,
        methods=PRETRAINED_METHODS,
        when=DEPTH,
    ),
    "horizontal_flip": Parameter(
        "bool",
        "mirror images at random; leave it off if a mirror image has another class",
        Choice((False, True)),
    ),
    "head_init": Parameter(
        "name",
        "initial weights of the head: random, or those of a linear probe on the frozen backbone",
        Choice(HEAD_INITS),
        methods=tuple(
            name for name in PRETRAINED_METHODS if name != "source"
        ),  # it sees no labels of the target
        needs_target_labels=True,
    ),
    "weighting": Parameter(
        "name",
        "what determines a source image's weight: a domain classifier's odds, kernel mean matching, or boosting",
        Choice(WEIGHTINGS),
        core=True,
        methods=("reweight",),
        default="odds",
    ),
    "source_share": Parameter(
        "float",
        "fraction of source images in a batch",
        FloatRange(0.1, 0.9),
        minimum=0,
        maximum=1,
        minimum_excluded=True,
        core=True,
        methods=("reweight",),
        needs_target_labels=True,
        default=0.5,
    ),
    "weight_temperature": Parameter(
        "float",
        "above 1 the weights of source images become more equal, below 1 less",
        FloatRange(0.5, 8.0, log=True),
        minimum=0,
        maximum=1000,
        minimum_excluded=True,
        methods=("reweight",),
        when="weighting",
        when_values=("odds", "kmm"),
    ),
    "weight_clip": Parameter(
        "float",
        "largest weight of a source image, divided by the mean of all weights",
        FloatRange(2.0, 50.0, log=True),
        minimum=1,
        methods=("reweight",),
        when="weighting",
        when_values=("odds", "kmm"),
    ),
    "alignment": Parameter(
        "name",
        "what makes the features similar: covariances (coral), kernel means (mmd), or an adversary (dann)",
        Choice(ALIGNMENTS),
        core=True,
        methods=("align",),
        default="mmd",
    ),
    "alignment_weight": Parameter(
        "float",
        "weight of the alignment in the loss (lambda)",
        FloatRange(1e-2, 1e2, log=True),
        minimum=0,
        core=True,
        methods=("align",),
        default=1.0,
    ),
    "alignment_schedule": Parameter(
        "name",
        "whether lambda is constant or rises from 0 as in DANN",
        Choice(ALIGNMENT_SCHEDULES),
        methods=("align",),
    ),
    "alignment_layer": Parameter(
        "name",
        "which layer is aligned: the backbone's features, or the head's hidden layer",
        Choice(ALIGNMENT_LAYERS),
        methods=("align",),
        when="head_units",
    ),
    "distillation": Parameter(
        "name",
        "what is learned from the teacher: softened predictions (plain), distances and angles between images "
        "(relational), or both",
        Choice(DISTILLATIONS),
        core=True,
        methods=("distill",),
        default="both",
    ),
    "distill_weight": Parameter(
        "float",
        "weight of the teacher in the loss, relative to that of the labels",
        FloatRange(0.1, 30.0, log=True),
        minimum=0,
        core=True,
        methods=("distill",),
        default=1.0,
    ),
    "distill_temperature": Parameter(
        "float",
        "temperature that softens the teacher's predictions",
        FloatRange(1.0, 20.0, log=True),
        minimum=0,
        minimum_excluded=True,
        core=True,
        methods=("distill",),
        when="distillation",
        when_values=("plain", "both"),
        default=4.0,
    ),
    "l2sp": Parameter(
        "float",
        "strength of L2-SP, which pulls the unfrozen blocks back to their pretrained weights and replaces weight decay",
        Choice((0.0, 1e-3, 1e-2, 1e-1, 1.0)),  # a list, because a logarithmic range cannot hold 0
        minimum=0,
        maximum=1e6,
        methods=PRETRAINED_METHODS,
        when=DEPTH,
    ),
    "layer_lr_decay": Parameter(
        "float",
        "learning rate of each unfrozen block divided by that of the block above it",
        FloatRange(0.3, 1.0),
        minimum=0,
        maximum=1,
        minimum_excluded=True,
        methods=PRETRAINED_METHODS,
        when=DEPTH,
    ),
    "gradual_unfreezing": Parameter(
        "float",
        "fraction of the epochs during which the blocks begin to train one by one, from the top; 0 starts all at once",
        FloatRange(0.0, 0.75, step=0.25),
        minimum=0,
        maximum=1,
        maximum_excluded=True,
        methods=PRETRAINED_METHODS,
        when=DEPTH,
    ),
    "remembering": Parameter(
        "name",
        "how the old task is kept: elastic weight consolidation, learning without forgetting, or rehearsal",
        Choice(REMEMBERINGS),
        core=True,
        methods=("finetune",),
        when=DEPTH,
    ),
    "remember_weight": Parameter(
        "float",
        "weight of the old task in the loss",
        FloatRange(1e-3, 10.0, log=True),
        minimum=0,
        maximum=1e6,
        core=True,
        methods=("finetune",),
        when=DEPTH,
    ),
}
"""All parameters by name, in the order in which a trial suggests them."""


def _finetuning_parameters(core: bool) -> tuple[str, ...]:
    return tuple(
        name
        for name, parameter in PARAMETERS.items()
        if parameter.core is core and parameter.applies_to("finetune") and name not in OLD_TASK_PARAMETERS
    )


def _as_code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


CORE_PARAMETERS = _finetuning_parameters(core=True)
"""Names of the parameters of fine-tuning in the ``core`` space."""

SPACES: Mapping[str, str] = {
    "core": _as_code(CORE_PARAMETERS),
    "full": f"those of `core` and {_as_code(_finetuning_parameters(core=False))}",
}
"""The built-in spaces by name, with their parameters under the method ``finetune``."""


@cache
def parameters(blocks: int, random_heads: bool = False) -> Mapping[str, Parameter]:
    """Return :data:`PARAMETERS` for a backbone of ``blocks`` blocks, which bound ``unfreeze_depth``.

    Args:
        blocks: number of blocks.
        random_heads: as in the searches of earlier versions, whose heads start at random by default. There a trial
            suggests ``head_init`` only if it trains a block.
    """
    depth = replace(PARAMETERS[DEPTH], range=IntRange(0, blocks), maximum=blocks)
    known = {**PARAMETERS, DEPTH: depth}
    if random_heads:
        known["head_init"] = replace(known["head_init"], when=DEPTH, methods=PRETRAINED_METHODS)
    return known


def backbone_parameter(names: tuple[str, ...]) -> Parameter:
    """Return the parameter that chooses among several backbones (``--backbone A --backbone B``)."""
    return Parameter("name", "which of the backbones is trained", Choice(names), core=True)
