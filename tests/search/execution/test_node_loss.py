"""What the searcher does about trials whose node is gone, and how many it hands out: without processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from search.config.space import core_space
from search.execution.engines.engine_client import ENGINE_DIED
from search.execution.searcher import LedgerSearcher
from search.execution.trial_recovery import RetryPolicy, TrialRecovery
from search.execution.tune_callbacks import MAX_UNSTARTED_FAILURES, NodeLossCallback
from search.ledger.ledger import Ledger, sqlite_url

SPACE = core_space(4)


@dataclass
class Desk:
    """A searcher, and what it is told about the world."""

    ledger: Ledger
    room: int = 2
    gone: bool = False

    def __post_init__(self) -> None:
        retries = RetryPolicy(self.ledger, 0, 32, lambda words: None)  # none at all
        self.searcher = LedgerSearcher(
            self.ledger,
            SPACE.suggest,
            lambda record: {"number": record.number},
            TrialRecovery(retries, None, lambda words: None),
            limit=4,
            room=lambda: self.room,
            epochs=1,
            go_on=lambda: True,
            changed=lambda: None,
            heard=lambda number, result: None,
            finished=lambda number: None,
            astray=lambda trial_id: self.gone,
        )
        self._names = iter(f"tune {number}" for number in range(100))

    def ask(self) -> tuple[str, Any]:
        """Ray Tune's name for the next trial, and what it is."""
        name = next(self._names)
        suggested = self.searcher.suggest(name)
        return name, suggested["number"] if isinstance(suggested, dict) else suggested

    def end(self, name: str) -> None:
        """A trial ends well."""
        metrics = {"val_accuracy": 0.5, "val_loss": 1.0, "train_loss": 1.0, "epoch_seconds": 1.0}
        self.searcher.on_trial_complete(name, {"epoch": 1, "done": True, **metrics})


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
            desk.searcher.lost(name, "the node died", silent=False)
        else:
            desk.searcher.on_trial_complete(name, {"reason": ENGINE_DIED, "engine": "life", "done": True})
    name, number = desk.ask()
    desk.end(name)
    assert [(t.state, t.retries) for t in desk.ledger.trials] == [("complete", 0)]
    desk.gone = False
    name, number = desk.ask()
    desk.searcher.on_trial_complete(name, error=True)
    desk.searcher.lost(name, "it died", silent=False)
    assert desk.ledger.trial(number).state == "failed"


def test_trials_that_never_begin_have_another_cause_than_a_lost_node() -> None:
    whereabouts = NodeLossCallback()
    found = [whereabouts.astray(f"tune {number}") for number in range(MAX_UNSTARTED_FAILURES + 2)]
    assert found == [True] * MAX_UNSTARTED_FAILURES + [False] * 2
