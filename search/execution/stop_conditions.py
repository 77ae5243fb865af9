"""Conditions that end a search early: it no longer improves (``--patience``), or all trials fail with one error."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from search.records.metrics import Direction
from search.records.pareto import Point, objective_losses, weakly_dominates
from search.records.record import TrialRecord

MIN_IDENTICAL_FAILURES = 3
"""If the first trials, this many or more, all fail with one error, the next trial is expected to fail too."""


@dataclass
class IdenticalFailures:
    """Checks whether all trials that ended in this run of the command failed with the same error.

    Trials of earlier runs do not count: the cause of their failures may have been repaired since.
    """

    _failed: int = 0
    _error: str | None = None
    _different: bool = False

    @property
    def error(self) -> str | None:
        """Last line of the error of all trials so far; None if they ended differently or are too few."""
        return None if self._different or self._failed < MIN_IDENTICAL_FAILURES else self._error

    def trial_ended(self, trial: TrialRecord) -> None:
        """Count a trial that has ended."""
        line = last_error_line(trial)
        # One trial that succeeds, or fails for another reason, shows that not every trial must fail: the
        # condition never holds again in this run.
        if line is None or self._error not in (None, line):
            self._different = True
        self._failed, self._error = self._failed + 1, line


def last_error_line(trial: TrialRecord) -> str | None:
    """Return the last line of a failed trial's error; None if it did not fail.

    The lines above differ from trial to trial although the cause is the same: they name files and threads.
    """
    if trial.state != "failed" or not trial.error or not trial.error.strip():
        return None
    return trial.error.strip().splitlines()[-1]


@dataclass
class Patience:
    """Counts the trials that have ended since the best one did.

    Attributes:
        since: number of those trials.
        objectives: names of several objectives; then a trial counts as better if it is a new point of the Pareto front.
            Empty for a search with one objective.
    """

    since: int = 0
    objectives: tuple[str, ...] = ()
    _best: float = -math.inf
    _points: list[Point] = field(default_factory=list)

    def recount(self, trials: Iterable[TrialRecord], direction: Direction) -> None:
        """Count again from the trials that have ended so far, in the order in which they ended."""
        self.since, self._best, self._points = 0, -math.inf, []
        ended = [t for t in trials if t.finished]
        for trial in sorted(ended, key=lambda t: (t.ended.timestamp() if t.ended else 0.0, t.number)):
            self.trial_ended(trial, direction)

    def trial_ended(self, trial: TrialRecord, direction: Direction) -> None:
        """Count a trial that has ended."""
        if self.objectives:
            self._count(
                objective_losses(trial.objectives, self.objectives) if trial.state == "complete" else None
            )
            return
        sign = 1.0 if direction == "maximize" else -1.0
        # A trial without a value never exceeds the best, so it counts as one without progress; so does an
        # equal value.
        value = -math.inf if trial.value is None else sign * trial.value
        self._best, self.since = (value, 0) if value > self._best else (self._best, self.since + 1)

    def _count(self, point: Point | None) -> None:
        if point is None or any(weakly_dominates(known, point) for known in self._points):
            self.since += 1
            return
        self.since = 0
        # Only the front is kept: a point that it dominates can never be a new point of it.
        self._points = [known for known in self._points if not weakly_dominates(point, known)] + [point]
