"""Decides which trials are retried after a crash, a hang, a lack of memory or the loss of a node.

A trial may be retried ``max_retries`` times after failures that were its own. These are counted as retries:

- its own process died, or its engine died while the trial was alone in it (``crashed``),
- it reported no epoch within ``trial_timeout`` (``timed_out``).

These are not counted: a lost node, an engine that another trial crashed, and the one attempt with batches of half the
size after a lack of memory (``out_of_memory``). Which trial crashed a shared engine is found out by
:mod:`search.execution.crash_attribution`.

A trial that raised a Python exception never comes here: it would raise it again, so the searcher ends it as failed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from search.execution.cluster.oom_kills import is_oom_message
from search.execution.crash_attribution import CrashAttribution
from search.execution.engines.engine_client import ENGINE_HUNG, ENGINE_LOSS_REASONS, ENGINE_OUT_OF_MEMORY
from search.execution.engines.messages import EpochResult
from search.ledger.ledger import Ledger
from search.records.formatting import plural

FailureCause = Literal["crashed", "timed_out", "out_of_memory"]

_CAUSES: dict[FailureCause, str] = {
    "crashed": "its process died",
    "timed_out": "it reported no epoch within trial_timeout",
    "out_of_memory": "no memory left",
}
"""Descriptions of the causes, as the ledger keeps them in the error of a trial."""

_ENGINE_EVENTS: dict[FailureCause, str] = {
    "crashed": "crashed",
    "timed_out": "hung",
    "out_of_memory": "ran out of memory",
}

_MAX_ERROR_CHARACTERS = 2000
"""Ray's messages about dead processes may hold whole logs; the beginning contains the cause."""


@dataclass(frozen=True)
class RetryPolicy:
    """Decides whether a trial whose failure was its own is retried.

    The counts are in the ledger, so that the next run of the same command continues them.

    Attributes:
        ledger: of the search.
        max_retries: how often one trial is retried.
        batch_size: of all trials that have enough memory.
        notify: receives a line for the user.
    """

    ledger: Ledger
    max_retries: int
    batch_size: int
    notify: Callable[[str], None]

    def retry_or_finish(self, number: int, cause: FailureCause, error: str) -> bool:
        """Return whether a running trial is retried; if it is not, write its end to the ledger.

        After a lack of memory the trial is retried once with batches of half the size, which ``max_retries`` does not
        count. If that fails too, the trial is pruned as infeasible, so that the sampler avoids such configurations.
        """
        trial = self.ledger.trial(number)
        if cause == "out_of_memory":
            batch = self.batch_size // 2
            # A batch size of its own shows that the trial has had its one attempt; a batch of one cannot be
            # halved.
            if trial.batch_size is not None or not batch:
                self.ledger.finish(number, "pruned", reason=cause, error=error)
                return False
            # The ledger keeps the batch size, so that a resumed search does not run out of memory once more.
            self.ledger.retry(number, retries=trial.retries, batch_size=batch)
            self.notify(f"trial {number}: {_CAUSES[cause]}; retrying it with batches of {batch}")
            return True
        if trial.retries >= self.max_retries:
            words = f"{_CAUSES[cause]}, {plural(trial.retries + 1, 'time')}"
            self.ledger.finish(number, "failed", reason=cause, error=f"{error}\n{words}".strip())
            return False
        self.ledger.retry(number, retries=trial.retries + 1, batch_size=trial.batch_size)
        self.notify(
            f"trial {number}: {_CAUSES[cause]}; retrying it (retry {trial.retries + 1} of {self.max_retries})"
        )
        return True


@dataclass
class TrialRecovery:
    """Keeps track of everything that happens to the trials of Ray Tune, and decides which of them are retried.

    Attributes:
        retries: decides whether a trial whose failure was its own is retried.
        timeout: seconds that an epoch may take; None for no limit.
        notify: receives a line for the user.
    """

    retries: RetryPolicy
    timeout: float | None
    notify: Callable[[str], None]
    _attribution: CrashAttribution = field(default_factory=CrashAttribution)
    _causes: dict[str, FailureCause] = field(default_factory=dict)
    """Why each engine died, as the first trial reported it. Later reports may only know that the engine is gone."""
    _last_report: dict[int, float] = field(default_factory=dict)
    """When each running trial reported its newest epoch."""

    @property
    def holding(self) -> bool:
        """Whether no trial may start now."""
        return self._attribution.holding

    def next_retry(self) -> int | None:
        """Return the trial to retry now, if there is one."""
        return self._attribution.next_retry()

    def trial_started(self, number: int) -> None:
        """A trial has been handed to Ray Tune."""
        self._attribution.trial_started(number)

    def epoch_reported(self, number: int, result: EpochResult) -> None:
        """A trial has reported an epoch."""
        self._last_report[number] = time.monotonic()
        self._attribution.epoch_reported(number, result.engine, trained=not result.repeated)

    def trial_ended(self, number: int) -> None:
        """A trial has ended."""
        self._last_report.pop(number, None)
        self._attribution.trial_ended(number)

    def trial_stopped(self, number: int, result: EpochResult) -> bool:
        """Handle the last result of a trial.

        Returns:
            Whether the trial is dealt with: it will be retried, or the ledger has its end. False means that the result
            is an ordinary end, which the caller has to write.
        """
        reason, engine, error = result.reason, result.engine, result.error or ""
        if reason == "out_of_memory":
            # The trial itself ran out of memory and the engine lives on: the others are not affected.
            self.trial_ended(number)
            self._blame(number, "out_of_memory", error, alone=False)
        elif reason == ENGINE_HUNG:
            self._engine_hung(number, str(engine), error)
        elif reason in ENGINE_LOSS_REASONS:
            cause: FailureCause = "out_of_memory" if reason == ENGINE_OUT_OF_MEMORY else "crashed"
            self._engine_died(number, engine, cause, error)
        else:
            return False
        self._last_report.pop(number, None)
        return True

    def node_lost(self, number: int) -> None:
        """A trial's node was lost, which is no trial's fault: it is retried elsewhere, at any time."""
        self.trial_ended(number)
        self._attribution.requeue(number, alone=False)

    def process_died(self, number: int, message: str, hung: bool) -> None:
        """A trial's own process has died, or was killed because it ``hung``.

        That harms no other trial, unless the machine lacks memory: then the memory monitor may have chosen any process.
        """
        if is_oom_message(message):
            self._engine_died(number, None, "out_of_memory", message)
            return
        self.trial_ended(number)
        self._blame(number, "timed_out" if hung else "crashed", "" if hung else message, alone=False)

    def _engine_hung(self, number: int, engine: str, error: str) -> None:
        """A trial waited too long for its engine. Either this trial hangs, or the whole engine does.

        If a neighbour has reported an epoch recently, only this trial hangs. Otherwise the hang is treated like a
        crash, whose cause has to be found.
        """
        now, limit = time.monotonic(), self.timeout or 0.0
        neighbours = self._attribution.engine_neighbours(number)
        # Half the limit: a neighbour that hangs too has reported nothing for nearly as long as this trial.
        alone = any(now - self._last_report.get(other, -math.inf) < limit / 2 for other in neighbours)
        # An engine in ``_causes`` has been killed because of another trial: this timeout is a consequence of
        # that, not a second hang.
        if not alone or engine in self._causes:
            self._engine_died(number, engine, "timed_out", error)
            return
        self._causes[engine] = "timed_out"
        self._attribution.engine_stopped(number, engine)
        self._blame(number, "timed_out", error, alone=False)

    def _engine_died(self, number: int, engine: str | None, cause: FailureCause, error: str) -> None:
        # All trials of the engine report its death, but the user needs one line about it.
        # A process that the memory monitor killed does not name its engine. If trials are held back already,
        # the user has been notified of this crash.
        known = engine in self._causes if engine else self._attribution.holding
        first = self._causes.setdefault(engine, cause) if engine else cause
        count = len(self._attribution.engine_neighbours(number)) + 1
        if self._attribution.engine_died(number, engine):
            self._blame(number, first, error, alone=True)
        elif not known:
            self.notify(
                f"an engine process {_ENGINE_EVENTS[first]} while running {plural(count, 'trial')}; retrying them one "
                "at a time"
            )

    def _blame(self, number: int, cause: FailureCause, error: str, alone: bool) -> None:
        if self.retries.retry_or_finish(number, cause, error[:_MAX_ERROR_CHARACTERS]):
            self._attribution.requeue(number, alone)
