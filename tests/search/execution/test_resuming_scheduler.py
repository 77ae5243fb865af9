"""Test that schedulers treat a retried trial as the trial that it was."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from search.config.choices import SCHEDULERS
from search.execution.engines.messages import EpochResult, SessionSpec, TrialRequest, WorkbenchPaths
from search.execution.schedulers import make_scheduler
from search.execution.trial_actor import TrialAssignment
from trainables.training.trial_config import TrialConfig

RATES = {0: 0.9, 1: 0.5, 2: 0.7, 3: 0.8, 4: 0.3, 5: 0.6}
EPOCHS = 9


class Tune:
    """The part of Tune's controller that schedulers use."""

    def get_live_trials(self) -> set[Any]:
        return set()


class Trial(SimpleNamespace):
    """The part of Tune's trial that schedulers use: a new id for each retry, and the ledger's number."""

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


def assigned(number: int, epochs: int = EPOCHS) -> dict[str, Any]:
    """The configuration of a Tune trial."""
    paths = WorkbenchPaths(Path("backbone"), Path("task"))
    request = TrialRequest(f"finetune-{number}", TrialConfig("finetune", {}, epochs=epochs), paths)
    return TrialAssignment(number, SessionSpec("session"), request).to_tune()


def decisions(name: str, retried: dict[int, int]) -> dict[int, int]:
    """The last epoch of each trial when all run in step; ``retried`` has the epoch after which a trial died."""
    scheduler, tune = make_scheduler(name, "val_accuracy", "maximize"), Tune()
    trials = {n: Trial(trial_id=f"first {n}", config=assigned(n)) for n in RATES}
    for trial in trials.values():
        scheduler.on_trial_add(tune, trial)
    reached = dict.fromkeys(RATES, 0)
    running = set(RATES)
    for epoch in range(1, EPOCHS + 1):
        for number in sorted(running):
            result = {"epoch": epoch, "val_accuracy": RATES[number] * epoch / EPOCHS}
            reached[number] = epoch
            if scheduler.on_trial_result(tune, trials[number], result) == TrialScheduler.STOP:
                scheduler.on_trial_complete(tune, trials[number], result)
                running.discard(number)
            elif retried.get(number) == epoch:
                scheduler.on_trial_error(tune, trials[number])
                scheduler.on_trial_complete(
                    tune, trials[number], EpochResult(0, True, reason="engine_died").to_tune()
                )
                trials[number] = Trial(trial_id=f"second {number}", config=assigned(number))
                scheduler.on_trial_add(tune, trials[number])
                assert scheduler.on_trial_result(tune, trials[number], result) == TrialScheduler.CONTINUE
    return reached


@pytest.mark.parametrize(
    "name", [n for n in SCHEDULERS if n != "hyperband"]
)  # it draws the brackets at random
@pytest.mark.parametrize("retried", [{0: 1}, {0: 2, 3: 2}, {0: 3, 2: 1, 3: 5}])
def test_retried_trials_change_no_decision(name: str, retried: dict[int, int]) -> None:
    undisturbed = decisions(name, {})
    assert decisions(name, retried) == undisturbed
    assert len(set(undisturbed.values())) > 1 or name == "none"


def test_a_trial_that_ended_without_a_value_is_not_compared_with() -> None:
    scheduler, tune = make_scheduler("median", "val_accuracy", "maximize"), Tune()
    for number in range(5):
        trial = Trial(trial_id=str(number), config=assigned(number))
        scheduler.on_trial_add(tune, trial)
        for epoch in range(1, EPOCHS):
            result = {"epoch": epoch, "val_accuracy": 0.5 + number / 10, "time_total_s": epoch}
            scheduler.on_trial_result(tune, trial, result)
        scheduler.on_trial_complete(tune, trial, EpochResult(EPOCHS, True, reason="diverged").to_tune())
    last = Trial(trial_id="last", config=assigned(5))
    scheduler.on_trial_add(tune, last)
    result = {"epoch": EPOCHS, "val_accuracy": 0.1, "time_total_s": EPOCHS}
    assert (
        scheduler.on_trial_result(tune, last, result) == TrialScheduler.CONTINUE
    )  # no other trial completed so many epochs
