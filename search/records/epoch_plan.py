"""Decides how many epochs a trial has: as many as ``--epochs`` asks for, or as many as give enough optimizer steps.

An epoch of a small data set has a few steps only, so a fixed number of epochs trains small data sets too little and
large ones too long. The resource of a trial is therefore its optimizer steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from search.records.formatting import plural
from trainables.methods.methods import METHODS

TARGET_STEPS = 300
"""Optimizer steps that a trial shall take if the number of epochs is left open."""

EPOCH_LIMITS = (12, 24)
"""Fewest and most epochs of a trial then.

With fewer, schedulers would have too few points at which to stop a trial. With more, trials of small data took longer
in proportion, and the best of them became no better (docs/benchmarks.md).
"""

MIN_SOURCE_EPOCHS = 5
"""Fewest epochs of a trial that sees a second dataset, if it needs so few to take as many steps as the others."""


@dataclass(frozen=True)
class EpochPlan:
    """The number of epochs of each trial of a search.

    Attributes:
        epochs: of a trial whose method is not in ``by_method``; no method has more.
        by_method: epochs of the methods that have others, because their epochs have other numbers of steps.
        automatic: whether the numbers follow from the data; False if the user gave one, or an earlier version began the
            search.

    >>> EpochPlan(20, {"align": 8}).of("align")
    8
    """

    epochs: int
    by_method: Mapping[str, int] = field(default_factory=dict)
    automatic: bool = False

    def of(self, method: str) -> int:
        """Return the number of epochs of a trial of ``method``."""
        return self.by_method.get(method, self.epochs)

    @property
    def phrase(self) -> str:
        """The numbers in words, such as ``up to 20 epochs each (align: 8)``."""
        others = ", ".join(f"{method}: {epochs}" for method, epochs in self.by_method.items())
        return f"up to {plural(self.epochs, 'epoch')} each{f' ({others})' if others else ''}"


def make_epoch_plan(methods: Iterable[str], target: int, source: int | None, batch_size: int) -> EpochPlan:
    """Return the plan of a search that leaves the number of epochs open.

    Trials of different methods take about equally many steps, so that they can be compared. The number of steps follows
    from the method whose epochs are the shortest.

    Args:
        methods: that trials of the search may have.
        target: number of training images of the target.
        source: number of training images of the source; None without one.
        batch_size: images in a step.

    >>> make_epoch_plan(["finetune"], target=200, source=None, batch_size=32)
    EpochPlan(epochs=24, by_method={}, automatic=True)
    """
    images = {method: _images_per_epoch(method, target, source or 0) for method in methods}
    shortest = min(images.values())
    epochs = epochs_for_steps(shortest, batch_size)
    others = {method: max(MIN_SOURCE_EPOCHS, round(epochs * shortest / n)) for method, n in images.items()}
    return EpochPlan(epochs, {method: own for method, own in others.items() if own < epochs}, automatic=True)


def epochs_for_steps(images: int, batch_size: int) -> int:
    """Return the number of epochs over ``images`` training images that gives about :data:`TARGET_STEPS` steps."""
    from trainables.training.schedule import steps_per_epoch  # loads NumPy, which the help page needs not

    fewest, most = EPOCH_LIMITS
    return min(max(round(TARGET_STEPS / steps_per_epoch(images, batch_size)), fewest), most)


def _images_per_epoch(method: str, target: int, source: int) -> int:
    """Return about how many images an epoch of ``method`` shows."""
    if "source" not in METHODS[method].required_options:
        return target
    return max(1, source) if method == "source" else target + source
