"""Creates Tune's trial schedulers, which decide which trials stop early, by name.

A new scheduler needs a function that makes it from :class:`SchedulerSettings`, here or in a file of its own, and one
entry in :data:`search.config.choices.SCHEDULERS` with the dotted path of that function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.config.choices import SCHEDULERS
from trainables.errors import UsageError
from trainables.implementations import load_implementation

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from search.execution.resuming_scheduler import IsDominated, ResumingScheduler
    from search.records.metrics import Direction

TIME_ATTRIBUTE = "progress"
"""The field of a trial's results by which schedulers compare trials: the share of its training that is done.

Trials of different methods may see other amounts of data in an epoch and have other numbers of epochs, so their epochs
are not comparable. :class:`~search.execution.resuming_scheduler.ResumingScheduler` adds the field.
"""

FIRST_RUNG = 1 / 3
"""Share of its training before which no trial is stopped.

During the warm-up (:data:`trainables.training.schedule.WARMUP_SHARE`) and for some time after it, the learning rate
decides the rank of a trial, whatever its result will be: a head that started at random is behind with a low rate, one
that started from the probe with a high rate, from which it has yet to recover
(``benchmarks.studies.training_length``).
"""

REDUCTION_FACTOR = 3
"""Of the trials that reach a rung of successive halving, the best one in this number continues. The next rung is at
this multiple of the training."""


@dataclass(frozen=True)
class SchedulerSettings:
    """What a scheduler is made from.

    Attributes:
        metric: by which trials are compared.
        direction: of the metric.
    """

    metric: str
    direction: Direction

    @property
    def mode(self) -> str:
        """The direction as Tune spells it, ``max`` or ``min``."""
        return "max" if self.direction == "maximize" else "min"


def make_scheduler(
    name: str, metric: str, direction: Direction, is_dominated: IsDominated | None = None
) -> ResumingScheduler:
    """Return the scheduler with this name.

    - ``asha``: successive halving without waiting (Li et al. 2020, "A System for Massively Parallel Hyperparameter
      Tuning") with reduction factor 3: a trial in the lower two thirds after a third of its training stops.
    - ``hyperband``: the same with three brackets, of which only the first stops trials.
    - ``median``: stops a trial whose best value is below the median of the other trials' running averages.
    - ``none``: stops no trial.

    None of them stops a trial before :data:`FIRST_RUNG`.

    Args:
        name: one of :data:`~search.config.choices.SCHEDULERS`.
        metric: by which trials are compared; the first one if there are several objectives.
        direction: of the metric.
        is_dominated: with several objectives, whether a trial may be stopped at all.

    Raises:
        UsageError: there is no such scheduler.
    """
    from search.execution.resuming_scheduler import ParetoAwareScheduler, ResumingScheduler

    if name not in SCHEDULERS:
        raise UsageError(f"scheduler: expected one of {', '.join(SCHEDULERS)}, received {name!r}")
    make = load_implementation(SCHEDULERS[name].implementation)
    scheduler = make(SchedulerSettings(metric, direction))
    if is_dominated is not None:
        return ParetoAwareScheduler(scheduler, TIME_ATTRIBUTE, is_dominated)
    return ResumingScheduler(scheduler, TIME_ATTRIBUTE)


def make_asha(settings: SchedulerSettings) -> TrialScheduler:
    """Make a scheduler of asynchronous successive halving."""
    return _halving(settings, brackets=1)


def make_hyperband(settings: SchedulerSettings) -> TrialScheduler:
    """Make a scheduler of three brackets of successive halving."""
    return _halving(settings, brackets=3)


def make_median(settings: SchedulerSettings) -> TrialScheduler:
    """Make a scheduler that stops trials below the median of the others."""
    from ray.tune.schedulers import MedianStoppingRule

    return MedianStoppingRule(
        time_attr=TIME_ATTRIBUTE,
        metric=settings.metric,
        mode=settings.mode,
        grace_period=FIRST_RUNG,
        min_samples_required=3,
    )


def make_fifo(settings: SchedulerSettings) -> TrialScheduler:
    """Make a scheduler that stops no trial."""
    from ray.tune.schedulers import FIFOScheduler

    return FIFOScheduler()


def _halving(settings: SchedulerSettings, brackets: int) -> TrialScheduler:
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(
        time_attr=TIME_ATTRIBUTE,
        metric=settings.metric,
        mode=settings.mode,
        max_t=1.0,
        # A little less, so that rounding can't let a trial pass the rung an epoch late.
        grace_period=FIRST_RUNG - 1e-9,
        reduction_factor=REDUCTION_FACTOR,
        brackets=brackets,
    )
