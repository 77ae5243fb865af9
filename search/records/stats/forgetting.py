"""How well an old task is still done: the difference that training made, on the same test images, with its interval."""

from __future__ import annotations

from dataclasses import dataclass

from search.records.predictions import OldTaskPredictions
from search.records.record import Interval
from search.records.stats.intervals import ConservativeInterval, paired_gain
from search.records.stats.paired_tests import McNemar, bootstrap_gain, mcnemar


@dataclass(frozen=True)
class ForgettingComparison(ConservativeInterval):
    """The old task before and after the winner's trainings.

    Attributes:
        images: test images of the old task.
        seeds: the winner's trainings.
        before: accuracy with the backbone untouched.
        after: mean accuracy of the trainings.
        gain: after minus before, with the interval of :func:`search.records.stats.intervals.paired_gain`; what
        is lost is below 0.
        bootstrap: the same with the interval of :func:`search.records.stats.paired_tests.bootstrap_gain`.
        served: McNemar's test of the registered training, after first, and before.
    """

    images: int
    seeds: int
    before: float
    after: float
    gain: Interval
    bootstrap: Interval
    served: McNemar

    @property
    def changed(self) -> bool:
        """Whether any image is told otherwise than before by the registered training, or the means differ."""
        return bool(self.served.first_only or self.served.second_only or self.gain.estimate)

    @property
    def lost(self) -> Interval:
        """Accuracy that is lost, the mean of the trainings; below 0 where it is gained."""
        return Interval(0.0 - self.gain.estimate, 0.0 - self.high, 0.0 - self.low)


def compare_old_task(old: OldTaskPredictions, chosen: int) -> ForgettingComparison:
    """The comparison; ``chosen`` is which training is registered."""
    before, after = old.before, old.after
    return ForgettingComparison(
        images=before.shape[1],
        seeds=len(after),
        before=float(before.mean()),
        after=float(after.mean()),
        gain=paired_gain(after, before),
        bootstrap=bootstrap_gain(after, before),
        served=mcnemar(after[chosen], before[chosen]),
    )
