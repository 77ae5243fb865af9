"""Whether all that a run of trials has brought so far is one and the same error."""

from __future__ import annotations

from dataclasses import dataclass

from search.records.record import TrialRecord

ENOUGH = 3
"""So many first trials that fail with one error say that the next will, too."""


@dataclass
class Alike:
    """Watches the trials that end in one run of the command. What earlier runs brought does not count: its cause may
    have been dealt with since.
    """

    _failed: int = 0
    _error: str | None = None
    _different: bool = False

    @property
    def error(self) -> str | None:
        """The last line of the error that all trials so far have ended with, once there are enough of them."""
        return None if self._different or self._failed < ENOUGH else self._error

    def ended(self, trial: TrialRecord) -> None:
        """A trial has ended."""
        line = last_line(trial)
        if line is None or self._error not in (None, line):
            self._different = True
        self._failed, self._error = self._failed + 1, line


def last_line(trial: TrialRecord) -> str | None:
    """The last line of a failed trial's error; None if it did not fail."""
    if trial.state != "failed" or not trial.error or not trial.error.strip():
        return None
    return trial.error.strip().splitlines()[-1]
