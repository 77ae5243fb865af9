"""``--patience``: whether the trials that ended of late brought nothing better."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from search.records.pareto import Point, as_good, losses
from search.records.record import Direction, TrialRecord


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
            self._count(losses(trial.objectives, self.objectives) if trial.state == "complete" else None)
            return
        sign = 1.0 if direction == "maximize" else -1.0
        value = -math.inf if trial.value is None else sign * trial.value
        self._best, self.since = (value, 0) if value > self._best else (self._best, self.since + 1)

    def _count(self, point: Point | None) -> None:
        if point is None or any(as_good(known, point) for known in self._points):
            self.since += 1
            return
        self.since = 0
        self._points = [known for known in self._points if not as_good(point, known)] + [point]
