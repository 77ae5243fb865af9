"""Trials that stopped before their end: who is to blame, who goes on, and when.

Whether a trial that died or hung by a fault of its own goes on, and how; otherwise it ends here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from search.execution.crash_attribution import CrashAttribution
from search.execution.engines.engine_client import ENGINE_HUNG, ENGINE_LOSS_REASONS, ENGINE_OUT_OF_MEMORY
from search.execution.engines.oom_kills import is_oom_message
from search.ledger.ledger import Ledger
from search.records.formatting import plural

FailureCause = Literal["crashed", "timed_out", "out_of_memory"]

_CAUSES = {
    "crashed": "its process died",
    "timed_out": "it reported no epoch within trial_timeout",
    "out_of_memory": "no memory left",
}


@dataclass(frozen=True)
class RetryPolicy:
    """Counts in the ledger, so that the next run of the command goes on counting.

    Args:
        ledger: of the search.
        most: how often one trial may go on.
        batch_size: of all trials whose memory is large enough.
        told: takes a line for whoever watches.
    """

    ledger: Ledger
    most: int
    batch_size: int
    told: Callable[[str], None]

    def go_on(self, number: int, cause: FailureCause, error: str) -> bool:
        """Whether a running trial is to go on; if not, the ledger has its end.

        A lack of memory gives one more try with batches of half the size, which ``most`` does not count; without
        that left, the configuration is one that samplers keep away from.
        """
        trial = self.ledger.trial(number)
        if cause == "out_of_memory":
            batch = self.batch_size // 2
            if trial.batch_size is not None or not batch:
                self.ledger.finish(number, "pruned", reason=cause, error=error)
                return False
            self.ledger.retry(number, retries=trial.retries, batch_size=batch)
            self.told(f"trial {number}: {_CAUSES[cause]}; it goes on with batches of {batch}")
            return True
        if trial.retries >= self.most:
            words = f"{_CAUSES[cause]}, {plural(trial.retries + 1, 'time')}"
            self.ledger.finish(number, "failed", reason=cause, error=f"{error}\n{words}".strip())
            return False
        self.ledger.retry(number, retries=trial.retries + 1, batch_size=trial.batch_size)
        self.told(f"trial {number}: {_CAUSES[cause]}; it goes on (retry {trial.retries + 1} of {self.most})")
        return True


_MAX_ERROR_CHARACTERS = 2000
_WORDS: dict[FailureCause, str] = {
    "crashed": "died",
    "timed_out": "hung",
    "out_of_memory": "died for lack of memory",
}


@dataclass
class TrialRecovery:
    """Told of every trial that Ray Tune runs.

    Args:
        retries: decide whether a trial that was to blame goes on.
        timeout: seconds without an epoch that a trial may take, if there is a limit.
        told: takes a line for whoever watches.
    """

    retries: RetryPolicy
    timeout: float | None
    told: Callable[[str], None]
    _casualties: CrashAttribution = field(default_factory=CrashAttribution)
    _causes: dict[str, FailureCause] = field(default_factory=dict)
    """Why each engine died, as the first trial that noticed said: to the others it may look otherwise."""
    _heard: dict[int, float] = field(default_factory=dict)
    """When each trial under way was heard of."""

    @property
    def holding(self) -> bool:
        """Whether nothing may start right now."""
        return self._casualties.holding

    def next(self) -> int | None:
        """The trial that comes back now, if any."""
        return self._casualties.next()

    def began(self, number: int) -> None:
        """A trial has been handed to Ray Tune."""
        self._casualties.began(number)

    def heard(self, number: int, result: Mapping[str, Any]) -> None:
        """A trial has reported an epoch."""
        self._heard[number] = time.monotonic()
        self._casualties.heard(number, result.get("engine"), trained=not result.get("again"))

    def ended(self, number: int) -> None:
        """A trial is over."""
        self._heard.pop(number, None)
        self._casualties.ended(number)

    def stopped(self, number: int, result: Mapping[str, Any]) -> bool:
        """Whether a trial's last result is not its end: it stopped for now, or the ledger has its end already."""
        reason, engine, error = result.get("reason"), result.get("engine"), str(result.get("error") or "")
        if reason == "out_of_memory":
            self.ended(number)
            self._blame(number, "out_of_memory", error, alone=False)
        elif reason == ENGINE_HUNG:
            self._silent(number, str(engine), error)
        elif reason in ENGINE_LOSS_REASONS:
            self._died(
                number, engine, "out_of_memory" if reason == ENGINE_OUT_OF_MEMORY else "crashed", error
            )
        else:
            return False
        self._heard.pop(number, None)
        return True

    def astray(self, number: int) -> None:
        """A trial's node was lost, which is nobody's fault: it goes on elsewhere, at any time."""
        self.ended(number)
        self._casualties.again(number, alone=False)

    def lost(self, number: int, words: str, silent: bool) -> None:
        """A trial's own process has died, which harms no other; unless the whole machine lacks memory."""
        if is_oom_message(words):
            self._died(number, None, "out_of_memory", words)
            return
        self.ended(number)
        self._blame(number, "timed_out" if silent else "crashed", "" if silent else words, alone=False)

    def _silent(self, number: int, engine: str, error: str) -> None:
        """A trial has waited too long for its engine: alone, or its neighbours have heard nothing either."""
        now, limit = time.monotonic(), self.timeout or 0.0
        others = self._casualties.beside(number)
        alone = any(now - self._heard.get(other, -math.inf) < limit / 2 for other in others)
        if not alone or engine in self._causes:
            self._died(number, engine, "timed_out", error)
            return
        self._causes[engine] = "timed_out"
        self._casualties.stopped(number, engine)
        self._blame(number, "timed_out", error, alone=False)

    def _died(self, number: int, engine: str | None, cause: FailureCause, error: str) -> None:
        known = engine in self._causes if engine else self._casualties.holding
        first = self._causes.setdefault(engine, cause) if engine else cause
        others = len(self._casualties.beside(number))
        if self._casualties.died(number, engine):
            self._blame(number, first, error, alone=True)
        elif not known:
            self.told(
                f"an engine with {plural(others + 1, 'trial')} in it {_WORDS[first]}; they come back one after another"
            )

    def _blame(self, number: int, cause: FailureCause, error: str, alone: bool) -> None:
        if self.retries.go_on(number, cause, error[:_MAX_ERROR_CHARACTERS]):
            self._casualties.again(number, alone)
