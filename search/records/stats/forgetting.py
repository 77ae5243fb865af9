"""Test how much of an old task's accuracy a training has lost, on the same test images."""

from __future__ import annotations

from dataclasses import dataclass

from search.records.predictions import OldTaskPredictions
from search.records.record import Interval
from search.records.stats.intervals import ConservativeInterval, paired_gain
from search.records.stats.paired_tests import McNemar, bootstrap_gain, mcnemar


@dataclass(frozen=True)
class ForgettingComparison(ConservativeInterval):
    """Accuracy on the old task before and after the winner's training runs.

    Attributes:
        images: number of test images of the old task.
        seeds: number of training runs.
        before: accuracy with the untouched backbone.
        after: mean accuracy after the training runs.
        gain: ``after`` minus ``before``, with the interval of :func:`search.records.stats.intervals.paired_gain`;
            negative if accuracy is lost.
        bootstrap: the same with the interval of :func:`search.records.stats.paired_tests.bootstrap_gain`.
        served: McNemar's test of the registered training run: first is after, second is before.
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
        """Whether the registered training run classifies any image differently than before, or the means differ."""
        return bool(self.served.first_only or self.served.second_only or self.gain.estimate)

    @property
    def lost(self) -> Interval:
        """Lost accuracy, averaged over the training runs; negative if accuracy is gained."""
        # 0.0 - x instead of -x: the loss of "no change" is 0.0 and not -0.0.
        return Interval(0.0 - self.gain.estimate, 0.0 - self.high, 0.0 - self.low)


def compare_old_task(old: OldTaskPredictions, chosen: int) -> ForgettingComparison:
    """Compare the accuracy before and after; ``chosen`` is the index of the registered training run."""
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
