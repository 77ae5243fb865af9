"""Connects the ledger to Ray Tune: proposes trials from the ledger and writes every result to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher

from search.execution.cluster.nodes import NodeLabels
from search.execution.engines.engine_client import ENGINE_LOSS_REASONS
from search.execution.engines.messages import EpochResult
from search.execution.trial_actor import TrialAssignment
from search.execution.trial_recovery import TrialRecovery
from search.fault_injection import failpoint
from search.ledger.ledger import Ledger
from search.records.record import Parameters, TrialRecord
from trainables.errors import LedgerError

if TYPE_CHECKING:
    import optuna


class SearchObserver(ABC):
    """Decides which trials :class:`LedgerSearcher` may start, and receives its events.

    Only :meth:`suggest` and :meth:`assign` have to be implemented.
    """

    @abstractmethod
    def suggest(self, trial: optuna.Trial) -> Parameters:
        """Choose the parameters of a new trial."""

    @abstractmethod
    def assign(self, record: TrialRecord) -> TrialAssignment:
        """Return what a trial actor needs to run a trial."""

    def max_running(self) -> int:
        """Return how many trials may be handed to Tune at this moment; at least one."""
        return 1

    def may_start(self) -> bool:
        """Return whether a new trial may start; False ends the search early."""
        return True

    def node_lost(self, trial_id: str) -> bool:
        """Return whether a trial, by Tune's id of it, was stopped by the loss of its node."""
        return False

    def ledger_changed(self) -> None:  # noqa: B027 - the default does nothing
        """The ledger has changed."""

    def epoch_reported(self, number: int, result: EpochResult | None) -> None:  # noqa: B027
        """A trial has reported a result and the ledger has it; None if the trial ended without a result."""

    def trial_ended(self, number: int) -> None:  # noqa: B027
        """A trial has ended and the ledger has its end."""


class LedgerSearcher(Searcher):  # type: ignore[misc]
    """Hands trials to Tune, in this order: retries, interrupted trials, then new ones (enqueued configurations first).

    Args:
        ledger: of the search.
        observer: decides what may start, and is notified of what happens.
        recovery: decides which trials are retried.
        max_trials: how many trials the ledger shall contain in the end.

    Attributes:
        ledger_error: why the ledger could not be written. Tune would only log some of these errors and continue, so
            that trials would run whose results are lost.
    """

    def __init__(
        self,
        ledger: Ledger,
        observer: SearchObserver,
        recovery: TrialRecovery,
        *,
        max_trials: int,
    ) -> None:
        super().__init__()
        self._ledger, self._observer, self._recovery = ledger, observer, recovery
        self._max_trials = max_trials
        self._interrupted = ledger.interrupted()
        self._numbers: dict[str, int] = {}
        self._labels = NodeLabels()
        self.ledger_error: LedgerError | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's configuration; None if none may start now, FINISHED if there is none left."""
        # Tune itself would start as many trials as it has resources for, also beyond max_concurrent.
        if len(self._numbers) >= self._observer.max_running():
            return None
        with self._recording_ledger_errors():
            record = self._next()
            if record is not None:
                self._numbers[trial_id] = record.number
                self._recovery.trial_started(record.number)
                failpoint("suggested")
                self._observer.ledger_changed()
                return self._observer.assign(record).to_tune()
            # A running trial may have to be retried. After FINISHED, Tune would not ask again.
            if self._numbers:
                return None
        return str(self.FINISHED)

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Write an epoch to the ledger."""
        number, reported = self._numbers[trial_id], EpochResult.from_tune(result)
        if reported is None:
            return
        # Node and cost stay in memory until the next write, so no ledger error can occur here.
        self._write_cost(number, reported)
        # Without metrics the trial has ended: on_trial_complete follows and writes why.
        if reported.metrics is not None:
            with self._recording_ledger_errors():
                self._recovery.epoch_reported(number, reported)
                self._ledger.report(number, reported.metrics)
                failpoint("reported")
                self._observer.epoch_reported(number, reported)
                self._observer.ledger_changed()

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record the trial's final state, or queue it for a retry.

        Process crashes are reported through :meth:`process_died`, because Tune does not pass on what Ray said of them.
        """
        if error:
            return  # process_died reports it, with the message
        number, reported = self._numbers.pop(trial_id), EpochResult.from_tune(result)
        if result is not None and reported is None:
            # Tune stopped the trial before its first result. The ledger keeps it as running, so that the next run of
            # the command resumes it.
            self._recovery.trial_ended(number)
            return
        if reported is not None:
            self._write_cost(number, reported)
        with self._recording_ledger_errors():
            # An engine also dies when its node does, which is no trial's fault and must not start an attribution.
            if reported and reported.reason in ENGINE_LOSS_REASONS and self._observer.node_lost(trial_id):
                self._recovery.node_lost(number)
            elif not (reported and self._recovery.trial_stopped(number, reported)):
                failpoint("ending")
                self._recovery.trial_ended(number)
                self._finish(number, reported)
            self._after_stop(number, reported)

    def process_died(self, trial_id: str, message: str, hung: bool) -> None:
        """A trial's own process has died, with Ray's ``message``, or was killed because it ``hung``."""
        number = self._numbers.pop(trial_id)
        with self._recording_ledger_errors():
            if self._observer.node_lost(trial_id):
                self._recovery.node_lost(number)
            else:
                self._recovery.process_died(number, message, hung)
            self._after_stop(number, None)

    def _after_stop(self, number: int, result: EpochResult | None) -> None:
        if self._ledger.trial(number).finished:
            failpoint("ended")
            self._observer.epoch_reported(number, result)
            self._observer.trial_ended(number)
        self._observer.ledger_changed()

    def _next(self) -> TrialRecord | None:
        retry = self._recovery.next_retry()
        if retry is not None:
            return self._ledger.trial(retry)
        # A trial on probation runs alone with its suspects: a new neighbour would blur the next attribution.
        if self._recovery.holding:
            return None
        if self._interrupted:
            return self._ledger.resume(self._interrupted.pop(0), self._observer.suggest)
        if self._ledger.started() >= self._max_trials or not self._observer.may_start():
            return None
        return self._ledger.start(self._observer.suggest)

    def _finish(self, number: int, result: EpochResult | None) -> None:
        if result is None:
            self._ledger.finish(number, "failed", reason="crashed", error="the trial's process died")
        elif result.reason == "crashed":
            self._ledger.finish(number, "failed", reason="crashed", error=result.error)
        elif result.reason is not None:
            self._ledger.finish(number, "pruned", reason=result.reason, error=result.error)
        else:
            # Tune reports a trial that its scheduler has stopped like one that has completed: only ``done``
            # tells the two apart.
            self._ledger.finish(
                number,
                "complete" if result.done else "pruned",
                reason=None if result.done else "scheduler",
                epoch=result.metrics,
            )

    @contextmanager
    def _recording_ledger_errors(self) -> Iterator[None]:
        try:
            yield
        except LedgerError as error:
            # Tune continues until the runner's stopper reads this attribute. The first error is the cause, so
            # later ones do not replace it.
            self.ledger_error = self.ledger_error or error

    def _write_cost(self, number: int, result: EpochResult) -> None:
        if result.node:
            self._ledger.record_node(number, self._labels.of(result.node))
        if result.stages:
            cost = result.cost.to_json() if result.cost is not None else {}
            self._ledger.record_cost(number, result.stages, cost)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the state."""

    def __getstate__(self) -> dict[str, Any]:
        """Return an empty state. Tune pickles its searcher for a restore that is never made; a ledger cannot be."""
        return {}
