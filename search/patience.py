"""``--patience``: whether the trials that ended of late brought nothing better."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from search.record import Direction, TrialRecord


@dataclass
class Patience:
    """Counts the trials that have ended since the best one did."""

    since: int = 0
    _best: float = -math.inf

    def look(self, trials: Iterable[TrialRecord], direction: Direction) -> None:
        """Count anew, from what has ended so far."""
        self.since, self._best = 0, -math.inf
        ended = [t for t in trials if t.finished]
        for trial in sorted(ended, key=lambda t: (t.ended.timestamp() if t.ended else 0.0, t.number)):
            self.ended(trial, direction)

    def ended(self, trial: TrialRecord, direction: Direction) -> None:
        """A trial has ended."""
        sign = 1.0 if direction == "maximize" else -1.0
        value = -math.inf if trial.value is None else sign * trial.value
        self._best, self.since = (value, 0) if value > self._best else (self._best, self.since + 1)
