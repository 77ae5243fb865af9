"""The table of transfer methods, from which validation, help, documentation and training follow.

To add a method, write one module in this folder with a subclass of :class:`trainables.training.training.Training`, and
add one entry to :data:`METHODS`. Parameters that only the new method has are declared with the others in
:mod:`search.config.parameters`.

This module imports no TensorFlow, because the command line reads the table. The module of a method is imported when a
trial of that method begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.errors import UsageError
from trainables.implementations import load_implementation
from trainables.training.trial_config import TrialConfig

if TYPE_CHECKING:
    from trainables.training.training import Training
    from trainables.training.workbench import Workbench


@dataclass(frozen=True)
class Method:
    """One transfer method, and what a search has to know about it before TensorFlow is loaded.

    Attributes:
        implementation: dotted path of the subclass of :class:`~trainables.training.training.Training`.
        description: what the method does, for help and docs.
        transfers: whether it starts from the backbone's pretrained weights.
        required_options: options without which it cannot run, ``source`` or ``teacher``.
        needs_target_labels: whether it needs labels of the target's training images.
        searchable: whether ``--method all`` may choose it. Baselines are not searchable.
        baselines: the methods with which it is compared, the most important first; none for a baseline.
        baseline_source: what it trains from, in words, if other methods are compared with it.
        reference: whether it is a single trial that a search runs for comparison. It trains in one epoch, whatever the
            number of epochs, ``--method`` does not accept it, and samplers and schedulers do not learn from it.
    """

    implementation: str
    description: str
    transfers: bool = True
    required_options: tuple[str, ...] = ()
    needs_target_labels: bool = True
    searchable: bool = True
    baselines: tuple[str, ...] = ("scratch",)
    baseline_source: str | None = None
    reference: bool = False

    def load(self) -> type[Training]:
        """Import and return the class that trains by this method."""
        found: type[Training] = load_implementation(self.implementation)
        return found


PROBE = "probe"
"""The method of the trial that every search is compared with: the frozen probe."""

METHODS: Mapping[str, Method] = {
    "finetune": Method(
        "trainables.methods.remember.RememberingFineTune",
        "model transfer: start from the pretrained weights, train the head and the top blocks",
        baseline_source="the target alone",
    ),
    "reweight": Method(
        "trainables.methods.reweight.Reweight",
        "instance transfer: also train on source images, weighted by their similarity to the target",
        required_options=("source",),
        needs_target_labels=False,
        baselines=("finetune", "source", "scratch"),
    ),
    "align": Method(
        "trainables.methods.align.Align",
        "feature transfer: train so that the features of source and target have the same distribution",
        required_options=("source",),
        needs_target_labels=False,
        baselines=("finetune", "source", "scratch"),
    ),
    "distill": Method(
        "trainables.methods.distill.Distill",
        "relation transfer: learn from the labels, from the predictions of a larger backbone, and from the relations "
        "that it sees between images",
        required_options=("teacher",),
        baselines=("finetune", "scratch"),
    ),
    "source": Method(
        "trainables.methods.baselines.SourceOnly",
        "baseline: train on the source alone",
        required_options=("source",),
        needs_target_labels=False,
        searchable=False,
        baselines=(),
        baseline_source="the source alone",
    ),
    "scratch": Method(
        "trainables.methods.baselines.Scratch",
        "baseline: start from random weights, transfer nothing",
        transfers=False,
        searchable=False,
        baselines=(),
        baseline_source="scratch",
    ),
    PROBE: Method(
        "trainables.methods.baselines.Probe",
        "reference: a regularised logistic regression on features of the frozen backbone",
        searchable=False,
        baselines=(),
        reference=True,
    ),
}
"""All methods by the name that trials have; ``--method`` accepts those that are no reference."""


def begin(config: TrialConfig, bench: Workbench) -> Training:
    """Begin a trial of the method that ``config`` names.

    Raises:
        UsageError: there is no such method, a parameter of the trial is wrong, or the method needs data that
            ``bench`` does not have.
    """
    method = METHODS.get(config.method)
    if method is None:
        raise UsageError(f"method: expected one of {', '.join(METHODS)}, received {config.method!r}")
    if method.needs_target_labels and bench.unlabelled:
        raise UsageError(
            f"method: {config.method!r} expected a target with labels, received one whose labels are hidden"
        )
    return method.load()(config, bench)
