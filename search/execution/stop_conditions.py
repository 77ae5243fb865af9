"""``--patience``: whether the trials that ended of late brought nothing better.

Whether all that a run of trials has brought so far is one and the same error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from search.records.metrics import Direction
from search.records.pareto import Point, objective_losses, weakly_dominates
from search.records.record import TrialRecord

MIN_IDENTICAL_FAILURES = 3
"""So many first trials that fail with one error say that the next will, too."""


@dataclass
class IdenticalFailures:
    """Watches the trials that end in one run of the command. What earlier runs brought does not count: its cause may
    have been dealt with since.
    """

    _failed: int = 0
    _error: str | None = None
    _different: bool = False

    @property
    def error(self) -> str | None:
        """The last line of the error that all trials so far have ended with, once there are enough of them."""
        return None if self._different or self._failed < MIN_IDENTICAL_FAILURES else self._error

    def ended(self, trial: TrialRecord) -> None:
        """A trial has ended."""
        line = last_error_line(trial)
        if line is None or self._error not in (None, line):
            self._different = True
        self._failed, self._error = self._failed + 1, line


def last_error_line(trial: TrialRecord) -> str | None:
    """The last line of a failed trial's error; None if it did not fail."""
    if trial.state != "failed" or not trial.error or not trial.error.strip():
        return None
    return trial.error.strip().splitlines()[-1]


@dataclass
class Patience:
    """Counts the trials that have ended since the best one did."""

    since: int = 0
    objectives: tuple[str, ...] = ()
    """Names of several objectives: then a trial counts as better where it is a new point of the front."""
    _best: float = -math.inf
    _points: list[Point] = field(default_factory=list)

    def look(self, trials: Iterable[TrialRecord], direction: Direction) -> None:
        """Count anew, from what has ended so far."""
        self.since, self._best, self._points = 0, -math.inf, []
        ended = [t for t in trials if t.finished]
        for trial in sorted(ended, key=lambda t: (t.ended.timestamp() if t.ended else 0.0, t.number)):
            self.ended(trial, direction)

    def ended(self, trial: TrialRecord, direction: Direction) -> None:
        """A trial has ended."""
        if self.objectives:
            self._count(
                objective_losses(trial.objectives, self.objectives) if trial.state == "complete" else None
            )
            return
        sign = 1.0 if direction == "maximize" else -1.0
        value = -math.inf if trial.value is None else sign * trial.value
        self._best, self.since = (value, 0) if value > self._best else (self._best, self.since + 1)

    def _count(self, point: Point | None) -> None:
        if point is None or any(weakly_dominates(known, point) for known in self._points):
            self.since += 1
            return
        self.since = 0
        self._points = [known for known in self._points if not weakly_dominates(point, known)] + [point]
