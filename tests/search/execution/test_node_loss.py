"""What the searcher does about trials whose node is gone, and how many it hands out: without processes."""

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
class Desk(SearchObserver):
    """A searcher, its observer, and what the observer says about the cluster."""

    ledger: Ledger
    room: int = 2
    gone: bool = False

    def __post_init__(self) -> None:
        retries = RetryPolicy(self.ledger, 0, 32, lambda words: None)  # none at all
        recovery = TrialRecovery(retries, None, lambda words: None)
        self.searcher = LedgerSearcher(self.ledger, self, recovery, max_trials=4, epochs=1)
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
        """Ray Tune's name for the next trial, and what it is."""
        name = next(self._names)
        suggested = self.searcher.suggest(name)
        return name, TrialAssignment.from_tune(suggested).number if isinstance(suggested, dict) else suggested

    def end(self, name: str) -> None:
        """A trial ends well."""
        result = EpochResult(1, True, EpochMetrics(1, 0.5, 1.0, 1.0, 1.0))
        self.searcher.on_trial_complete(name, result.to_tune())


@pytest.fixture
def desk(tmp_path: Path, open_ledger: Callable[..., Ledger]) -> Desk:
    return Desk(open_ledger(sqlite_url(tmp_path / "ledger.db")))


def test_as_many_trials_are_handed_out_as_there_is_room_for_at_the_moment(desk: Desk) -> None:
    assert [desk.ask()[1] for _ in range(3)] == [0, 1, None]
    desk.room = 3  # a node has come
    assert [desk.ask()[1] for _ in range(2)] == [2, None]
    desk.room = 1
    desk.end("tune 0")
    assert desk.ask()[1] is None
    desk.end("tune 1")
    desk.end("tune 3")
    assert desk.ask()[1] == 3
    desk.room = 9
    assert desk.ask()[1] is None  # that one may yet come back
    desk.end("tune 6")
    assert desk.ask()[1] == "FINISHED"
    assert [t.state for t in desk.ledger.trials] == ["complete"] * 4


@pytest.mark.parametrize("way", ["its own process went", "it saw its engine go"])
def test_a_trial_whose_node_is_gone_comes_back_though_there_are_no_retries(desk: Desk, way: str) -> None:
    desk.room, desk.gone = 1, True
    for _ in range(5):
        name, number = desk.ask()
        assert number == 0
        if way == "its own process went":
            desk.searcher.on_trial_complete(name, error=True)
            desk.searcher.process_died(name, "the node died", hung=False)
        else:
            desk.searcher.on_trial_complete(
                name, EpochResult(0, True, reason=ENGINE_DIED, engine="instance").to_tune()
            )
    name, number = desk.ask()
    desk.end(name)
    assert [(t.state, t.retries) for t in desk.ledger.trials] == [("complete", 0)]
    desk.gone = False
    name, number = desk.ask()
    desk.searcher.on_trial_complete(name, error=True)
    desk.searcher.process_died(name, "it died", hung=False)
    assert desk.ledger.trial(number).state == "failed"


def test_trials_that_never_begin_have_another_cause_than_a_lost_node() -> None:
    whereabouts = NodeLossCallback()
    found = [whereabouts.node_lost(f"tune {number}") for number in range(MAX_UNSTARTED_FAILURES + 2)]
    assert found == [True] * MAX_UNSTARTED_FAILURES + [False] * 2
