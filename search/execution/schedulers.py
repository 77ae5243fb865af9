"""Creates Tune's trial schedulers, which decide which trials stop early, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.config.choices import SCHEDULERS
from trainables.errors import UsageError

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from search.execution.resuming_scheduler import IsDominated
    from search.records.metrics import Direction

TIME_ATTRIBUTE = "epoch"
"""The field of a trial's results by which schedulers compare trials of equal age."""


def make_scheduler(
    name: str, metric: str, direction: Direction, epochs: int, is_dominated: IsDominated | None = None
) -> TrialScheduler:
    """Return the scheduler with this name.

    - ``asha``: successive halving without waiting (Li et al. 2020, "A System for Massively Parallel Hyperparameter
      Tuning") with reduction factor 3: a trial in the lower two thirds after 1, 3, 9, … epochs stops.
    - ``hyperband``: the same with three brackets, of which the later ones begin to stop trials later.
    - ``median``: stops a trial whose best value is below the median of the other trials' running averages.
    - ``none``: stops no trial.

    Args:
        name: one of :data:`~search.config.choices.SCHEDULERS`.
        metric: by which trials are compared; the first one if there are several objectives.
        direction: of the metric.
        epochs: of a complete trial.
        is_dominated: with several objectives, whether a trial may be stopped at all.

    Raises:
        UsageError: there is no such scheduler.
    """
    from search.execution.resuming_scheduler import ParetoAwareScheduler, ResumingScheduler

    scheduler = _scheduler(name, metric, direction, epochs)
    if is_dominated is not None:
        return ParetoAwareScheduler(scheduler, TIME_ATTRIBUTE, is_dominated)
    return ResumingScheduler(scheduler, TIME_ATTRIBUTE)


def _scheduler(name: str, metric: str, direction: Direction, epochs: int) -> TrialScheduler:
    from ray.tune import schedulers

    common = {
        "time_attr": TIME_ATTRIBUTE,
        "metric": metric,
        "mode": "max" if direction == "maximize" else "min",
    }
    if name == "asha":
        return schedulers.ASHAScheduler(**common, max_t=epochs, grace_period=1, reduction_factor=3)
    if name == "hyperband":
        return schedulers.ASHAScheduler(
            **common, max_t=epochs, grace_period=1, reduction_factor=3, brackets=3
        )
    if name == "median":
        return schedulers.MedianStoppingRule(
            **common, grace_period=max(1, epochs // 5), min_samples_required=3
        )
    if name == "none":
        return schedulers.FIFOScheduler()
    raise UsageError(f"scheduler: expected one of {', '.join(SCHEDULERS)}, received {name!r}")
