"""The bridge between the ledger and Ray Tune: suggests from the ledger, writes every result into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.tune.search import Searcher

from search.execution.engines.engine_client import ENGINE_LOSS_REASONS
from search.execution.engines.nodes import NodeLabels
from search.execution.trial_recovery import TrialRecovery
from search.fault_injection import failpoint
from search.ledger.ledger import Ledger, Suggest
from search.records.record import TrialRecord
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import LedgerError

MakeConfig = Callable[[TrialRecord], dict[str, Any]]


class LedgerSearcher(Searcher):  # type: ignore[misc]
    """Hands out what comes next: trials that come back, interrupted ones, enqueued ones, then new ones.

    Args:
        ledger: of the search.
        suggest: fills in a trial's parameters.
        make_config: what a trial actor needs to run a trial.
        comebacks: trials that have to go on after their process has died.
        limit: how many trials the ledger shall hold in the end.
        room: how many trials may be under way at this moment; at least one.
        epochs: of a whole trial; one that ends earlier was pruned.
        go_on: asked before each new trial; False ends the search early.
        changed: called after each change of the ledger.
        heard: called with the number of a trial and the result of each of its epochs, once it is in the ledger.
        finished: called with the number of a trial that has ended.
        astray: whether a trial, by Ray Tune's name of it, was stopped by the loss of its node.
    """

    def __init__(
        self,
        ledger: Ledger,
        suggest: Suggest,
        make_config: MakeConfig,
        comebacks: TrialRecovery,
        *,
        limit: int,
        room: Callable[[], int],
        epochs: int,
        go_on: Callable[[], bool],
        changed: Callable[[], None],
        heard: Callable[[int, Mapping[str, Any]], None],
        finished: Callable[[int], None],
        astray: Callable[[str], bool] = lambda trial_id: False,
    ) -> None:
        super().__init__()
        self._ledger, self._suggest, self._make_config = ledger, suggest, make_config
        self._comebacks = comebacks
        self._limit, self._epochs = limit, epochs
        self._go_on, self._changed = go_on, changed
        self._heard, self._finished = heard, finished
        self._room, self._astray = room, astray
        self._interrupted = ledger.interrupted()
        self._numbers: dict[str, int] = {}
        self._labels = NodeLabels()
        self.trouble: LedgerError | None = None
        """Why the ledger could not be written. Ray Tune itself would only log some of these, and go on."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration; None if it is not time for one, FINISHED if there is none."""
        if len(self._numbers) >= self._room():
            return None
        with self._writing():
            record = self._next()
            if record is not None:
                self._numbers[trial_id] = record.number
                self._comebacks.began(record.number)
                failpoint("suggested")
                self._changed()
                return self._make_config(record)
            if self._numbers:  # one of these may have to come back
                return None
        return str(self.FINISHED)

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Write an epoch."""
        number = self._numbers[trial_id]
        self._take_cost(number, result)
        if "reason" not in result:
            with self._writing():
                self._comebacks.heard(number, result)
                self._ledger.report(number, EpochMetrics.from_result(result))
                failpoint("reported")
                self._heard(number, result)
                self._changed()

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Write how a trial ended, or that it has to come back. Why its own process died is told by :meth:`lost`."""
        if error:
            return
        number = self._numbers.pop(trial_id)
        self._take_cost(number, result or {})
        with self._writing():
            if (result or {}).get("reason") in ENGINE_LOSS_REASONS and self._astray(trial_id):
                self._comebacks.astray(number)
            elif not self._comebacks.stopped(number, result or {}):
                failpoint("ending")
                self._comebacks.ended(number)
                self._end(number, result)
            self._settle(number, result or {})

    def lost(self, trial_id: str, words: str, silent: bool) -> None:
        """A trial's own process has died, with what Ray says of it, or was ended because it had been ``silent``."""
        number = self._numbers.pop(trial_id)
        with self._writing():
            if self._astray(trial_id):
                self._comebacks.astray(number)
            else:
                self._comebacks.lost(number, words, silent)
            self._settle(number, {})

    def _settle(self, number: int, result: Mapping[str, Any]) -> None:
        if self._ledger.trial(number).finished:
            failpoint("ended")
            self._heard(number, result)
            self._finished(number)
        self._changed()

    def _next(self) -> TrialRecord | None:
        back = self._comebacks.next()
        if back is not None:
            return self._ledger.trial(back)
        if self._comebacks.holding:
            return None
        if self._interrupted:
            return self._ledger.resume(self._interrupted.pop(0), self._suggest)
        if self._ledger.started() >= self._limit or not self._go_on():
            return None
        return self._ledger.start(self._suggest)

    def _end(self, number: int, result: Mapping[str, Any] | None) -> None:
        if result is None:
            self._ledger.finish(number, "failed", reason="crashed", error="the trial's process died")
        elif result.get("reason") == "crashed":
            self._ledger.finish(number, "failed", reason="crashed", error=result["error"])
        elif "reason" in result:
            self._ledger.finish(number, "pruned", reason=result["reason"], error=result.get("error"))
        else:
            whole = result["epoch"] >= self._epochs
            self._ledger.finish(
                number,
                "complete" if whole else "pruned",
                reason=None if whole else "scheduler",
                epoch=EpochMetrics.from_result(result),
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except LedgerError as error:
            self.trouble = self.trouble or error

    def _take_cost(self, number: int, result: Mapping[str, Any]) -> None:
        if node := result.get("node"):
            self._ledger.record_node(number, self._labels.of(str(node)))
        stages = _under("stages", result)
        if stages:
            self._ledger.record_cost(number, stages, _under("cost", result))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune pickles its searcher for a restore that is never made."""
        return {}


def _under(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping in a result, which Ray Tune hands over flattened: ``stages/data``."""
    prefix = f"{name}/"
    return {k.removeprefix(prefix): v for k, v in result.items() if k.startswith(prefix)}
