"""Test how the searcher retries trials of lost nodes and limits the running ones, without any processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from search.config.space import core_space
from search.execution.engines.engine_client import ENGINE_DIED
from search.execution.engines.messages import EpochResult, SessionSpec, TrialRequest, WorkbenchPaths
from search.execution.searcher import LedgerSearcher, SearchObserver
from search.execution.trial_actor import TrialAssignment
from search.execution.trial_recovery import RetryPolicy, TrialRecovery
from search.execution.tune_callbacks import MAX_UNSTARTED_FAILURES, NodeLossCallback
from search.ledger.ledger import Ledger, sqlite_url
from search.records.record import Parameters, TrialRecord
from trainables.epoch_metrics import EpochMetrics
from trainables.training.trial_config import TrialConfig

SPACE = core_space(4)


@dataclass
class Observer(SearchObserver):
    """A searcher, its observer, and what the observer says about the cluster."""

    ledger: Ledger
    room: int = 2
    gone: bool = False

    def __post_init__(self) -> None:
        retries = RetryPolicy(self.ledger, 0, 32, lambda words: None)  # none at all
        recovery = TrialRecovery(retries, None, lambda words: None)
        self.searcher = LedgerSearcher(self.ledger, self, recovery, max_trials=4)
        self._names = iter(f"tune {number}" for number in range(100))

    def suggest(self, trial: Any) -> Parameters:
        return SPACE.suggest(trial)

    def assign(self, record: TrialRecord) -> TrialAssignment:
        paths = WorkbenchPaths(Path("backbone"), Path("task"))
        request = TrialRequest(str(record.number), TrialConfig(record.method, record.params), paths)
        return TrialAssignment(record.number, SessionSpec("session"), request)

    def max_running(self) -> int:
        return self.room

    def node_lost(self, trial_id: str) -> bool:
        return self.gone

    def ask(self) -> tuple[str, Any]:
        """Ask for the next trial: Tune's id of it, and its number, None or FINISHED."""
        name = next(self._names)
        suggested = self.searcher.suggest(name)
        return name, TrialAssignment.from_tune(suggested).number if isinstance(suggested, dict) else suggested

    def end(self, name: str) -> None:
        """End a trial after its last epoch."""
        result = EpochResult(1, True, EpochMetrics(1, 0.5, 1.0, 1.0, 1.0))
        self.searcher.on_trial_complete(name, result.to_tune())


@pytest.fixture
def observer(tmp_path: Path, open_ledger: Callable[..., Ledger]) -> Observer:
    return Observer(open_ledger(sqlite_url(tmp_path / "ledger.db")))


def test_the_searcher_hands_out_as_many_trials_as_may_run_at_the_moment(
    observer: Observer,
) -> None:
    assert [observer.ask()[1] for _ in range(3)] == [0, 1, None]
    observer.room = 3  # a node has joined
    assert [observer.ask()[1] for _ in range(2)] == [2, None]
    observer.room = 1
    observer.end("tune 0")
    assert observer.ask()[1] is None
    observer.end("tune 1")
    observer.end("tune 3")
    assert observer.ask()[1] == 3
    observer.room = 9
    assert observer.ask()[1] is None  # trial 3 may still have to be retried
    observer.end("tune 6")
    assert observer.ask()[1] == "FINISHED"
    assert [t.state for t in observer.ledger.trials] == ["complete"] * 4


@pytest.mark.parametrize("way", ["its own process died", "its engine died"])
def test_a_trial_whose_node_is_lost_is_retried_even_without_retries_left(
    observer: Observer, way: str
) -> None:
    observer.room, observer.gone = 1, True
    for _ in range(5):
        name, number = observer.ask()
        assert number == 0
        if way == "its own process died":
            observer.searcher.on_trial_complete(name, error=True)
            observer.searcher.process_died(name, "the node died", hung=False)
        else:
            observer.searcher.on_trial_complete(
                name, EpochResult(0, True, reason=ENGINE_DIED, engine="instance").to_tune()
            )
    name, number = observer.ask()
    observer.end(name)
    assert [(t.state, t.retries) for t in observer.ledger.trials] == [("complete", 0)]
    observer.gone = False
    name, number = observer.ask()
    observer.searcher.on_trial_complete(name, error=True)
    observer.searcher.process_died(name, "it died", hung=False)
    assert observer.ledger.trial(number).state == "failed"


def test_trials_that_never_begin_do_not_count_as_stopped_by_a_lost_node() -> None:
    callback = NodeLossCallback()
    found = [callback.node_lost(f"tune {number}") for number in range(MAX_UNSTARTED_FAILURES + 2)]
    assert found == [True] * MAX_UNSTARTED_FAILURES + [False] * 2
