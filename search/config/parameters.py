"""The parameters of the search space: kind, natural limits, and ranges in the built-in spaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from search.config.choices import ALL_METHODS, METHODS
from search.config.ranges import Choice, FloatRange, IntRange, Range
from search.records.record import ParameterValue

Kind = Literal["int", "float", "bool", "name"]

PRETRAINED_METHODS = ("finetune", "reweight", "align", "distill", "source")
"""Methods that train the top blocks of a pretrained backbone."""


REWEIGHTED = ("reweight",)
ALIGNED = ("align",)
OLD_TASK_PARAMETERS = ("remembering", "remember_weight")
"""Parameters of a search that has an old task to keep."""
DISTILLED = ("distill",)
LABEL_FREE_WEIGHTINGS = ("odds", "kmm")
"""Weightings that ask for no labels of the target."""


@dataclass(frozen=True)
class Parameter:
    """What a parameter is, whatever a space makes of it.

    ``least`` and ``most`` are natural limits: no value beyond them has a meaning, so the best value may well
    lie there. Where they are open (``open_least``, ``open_most``) the limit itself has no meaning either.
    ``methods`` are those that have a use for it (None: all). ``when`` names another parameter that must be
    above 0, or one of ``among``. ``labels`` is whether it makes sense only where the target has labels. ``fixed``
    is the value where a space of a user's own leaves it out (None: it is left out of the trial too). The values
    of a ``name`` are those of its ``range`` and no others.
    """

    kind: Kind
    words: str
    range: Range
    least: float | None = None
    most: float | None = None
    open_least: bool = False
    open_most: bool = False
    core: bool = False
    methods: tuple[str, ...] | None = None
    when: str | None = None
    among: tuple[str, ...] = ()
    labels: bool = False
    fixed: ParameterValue | None = None

    def applies_to(self, method: str) -> bool:
        """Whether ``method`` has a use for it."""
        return self.methods is None or method in self.methods

    @property
    def condition(self) -> str:
        """What :attr:`when` must be, in words."""
        return f"{self.when} is {' or '.join(self.among)}" if self.among else f"{self.when} is above 0"

    def condition_holds(self, value: object) -> bool:
        """Whether :attr:`when` may have this value."""
        return value in self.among if self.among else bool(value)


@cache
def parameters(blocks: int) -> Mapping[str, Parameter]:
    """All parameters, in the order in which a trial suggests them, for a backbone of ``blocks`` blocks."""
    return {
        "method": Parameter(
            "name",
            "how knowledge is transferred",
            Choice(tuple(name for name, method in METHODS.items() if method.rival)),
            core=True,
            methods=(ALL_METHODS,),
        ),
        "unfreeze_depth": Parameter(
            "int",
            "blocks that train, counted from the top; 0 trains the head alone",
            IntRange(0, blocks),
            least=0,
            most=blocks,
            core=True,
            methods=PRETRAINED_METHODS,
            fixed=0,
        ),
        "learning_rate": Parameter(
            "float",
            "of Adam, after warm-up",
            FloatRange(1e-4, 3e-2, log=True),
            least=0,
            most=10,
            open_least=True,
            core=True,
            fixed=1e-3,
        ),
        "head_units": Parameter(
            "int",
            "width of the head's hidden layer; 0 is a linear head",
            IntRange(0, 256, step=64),
            least=0,
            most=65_536,
            core=True,
            fixed=0,
        ),
        "augmentation_strength": Parameter(
            "float",
            "of rotation, shift, shear and zoom",
            FloatRange(0.0, 1.0, step=0.25),
            least=0,
            most=1,
            core=True,
            fixed=0.0,
        ),
        "weight_decay": Parameter(
            "float", "decoupled, as in AdamW", FloatRange(1e-6, 1e-2, log=True), least=0, most=1
        ),
        "dropout": Parameter(
            "float", "in front of the last layer", FloatRange(0.0, 0.5), least=0, most=1, open_most=True
        ),
        "label_smoothing": Parameter(
            "float", "of the training labels", FloatRange(0.0, 0.2), least=0, most=1, open_most=True
        ),
        "backbone_lr_ratio": Parameter(
            "float",
            "learning rate of the backbone's blocks over the head's",
            FloatRange(0.01, 1.0, log=True),
            least=0,
            most=1,
            open_least=True,
            methods=PRETRAINED_METHODS,
            when="unfreeze_depth",
        ),
        "horizontal_flip": Parameter(
            "bool", "mirror images; off where a mirror image is another thing", Choice((False, True))
        ),
        "head_init": Parameter(
            "name",
            "what the head starts from: random weights, or a probe trained on the frozen backbone",
            Choice(("random", "probe")),
            methods=PRETRAINED_METHODS,
            when="unfreeze_depth",
            labels=True,
        ),
        "weighting": Parameter(
            "name",
            "where a source image's weight comes from: a domain classifier's odds, kernel mean matching, or boosting",
            Choice(("odds", "kmm", "tradaboost")),
            core=True,
            methods=REWEIGHTED,
            fixed="odds",
        ),
        "source_share": Parameter(
            "float",
            "share of source images in a batch",
            FloatRange(0.1, 0.9),
            least=0,
            most=1,
            open_least=True,
            core=True,
            methods=REWEIGHTED,
            labels=True,
            fixed=0.5,
        ),
        "weight_temperature": Parameter(
            "float",
            "above 1 makes weights of source images more alike, below 1 less",
            FloatRange(0.5, 8.0, log=True),
            least=0,
            most=1000,
            open_least=True,
            methods=REWEIGHTED,
            when="weighting",
            among=("odds", "kmm"),
        ),
        "weight_clip": Parameter(
            "float",
            "most weight that one source image may have, over their mean",
            FloatRange(2.0, 50.0, log=True),
            least=1,
            methods=REWEIGHTED,
            when="weighting",
            among=("odds", "kmm"),
        ),
        "alignment": Parameter(
            "name",
            "what makes features alike: covariances (coral), kernel means (mmd), or an adversary (dann)",
            Choice(("coral", "mmd", "dann")),
            core=True,
            methods=ALIGNED,
            fixed="mmd",
        ),
        "alignment_weight": Parameter(
            "float",
            "of the alignment in the loss, lambda",
            FloatRange(1e-2, 1e2, log=True),
            least=0,
            core=True,
            methods=ALIGNED,
            fixed=1.0,
        ),
        "alignment_schedule": Parameter(
            "name",
            "whether lambda is constant or rises from 0 as in DANN",
            Choice(("constant", "ramp")),
            methods=ALIGNED,
        ),
        "alignment_layer": Parameter(
            "name",
            "what is made alike: the backbone's features, or the head's hidden layer",
            Choice(("features", "hidden")),
            methods=ALIGNED,
            when="head_units",
        ),
        "distillation": Parameter(
            "name",
            "what is learned from the teacher: softened answers (plain), distances and angles (relational), or both",
            Choice(("plain", "relational", "both")),
            core=True,
            methods=DISTILLED,
            fixed="both",
        ),
        "distill_weight": Parameter(
            "float",
            "of the teacher in the loss, over that of the labels",
            FloatRange(0.1, 30.0, log=True),
            least=0,
            core=True,
            methods=DISTILLED,
            fixed=1.0,
        ),
        "distill_temperature": Parameter(
            "float",
            "how much the teacher's answers are softened",
            FloatRange(1.0, 20.0, log=True),
            least=0,
            open_least=True,
            core=True,
            methods=DISTILLED,
            when="distillation",
            among=("plain", "both"),
            fixed=4.0,
        ),
        "l2sp": Parameter(
            "float",
            "pull of the unfrozen blocks back to their pretrained weights (L2-SP), in the place of weight decay",
            Choice((0.0, 1e-3, 1e-2, 1e-1, 1.0)),
            least=0,
            most=1e6,
            methods=PRETRAINED_METHODS,
            when="unfreeze_depth",
        ),
        "layer_lr_decay": Parameter(
            "float",
            "learning rate of each unfrozen block over that of the block above it",
            FloatRange(0.3, 1.0),
            least=0,
            most=1,
            open_least=True,
            methods=PRETRAINED_METHODS,
            when="unfreeze_depth",
        ),
        "gradual_unfreezing": Parameter(
            "float",
            "share of the epochs in which the blocks begin to train one by one, from the top; 0: all at once",
            FloatRange(0.0, 0.75, step=0.25),
            least=0,
            most=1,
            open_most=True,
            methods=PRETRAINED_METHODS,
            when="unfreeze_depth",
        ),
        "remembering": Parameter(
            "name",
            "how the old task is kept: elastic weight consolidation, learning without forgetting, or rehearsal",
            Choice(("ewc", "lwf", "rehearsal")),
            core=True,
            methods=("finetune",),
            when="unfreeze_depth",
        ),
        "remember_weight": Parameter(
            "float",
            "how much the old task counts",
            FloatRange(1e-3, 10.0, log=True),
            least=0,
            most=1e6,
            core=True,
            methods=("finetune",),
            when="unfreeze_depth",
        ),
    }
