"""A trial that comes back is the trial that it was, to whoever stops weak trials early."""

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
    """So much of Ray Tune's controller as schedulers ask for."""

    def get_live_trials(self) -> set[Any]:
        return set()


class Trial(SimpleNamespace):
    """So much of Ray Tune's trial: a name that is new each time, and the ledger's number."""

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


def assigned(number: int) -> dict[str, Any]:
    """The configuration of a Tune trial."""
    paths = WorkbenchPaths(Path("backbone"), Path("task"))
    request = TrialRequest(f"finetune-{number}", TrialConfig("finetune", {}), paths)
    return TrialAssignment(number, SessionSpec("session"), request).to_tune()


def decisions(name: str, comes_back: dict[int, int]) -> dict[int, int]:
    """How far each trial gets when all run in step; ``comes_back`` says after which epoch one died."""
    scheduler, tune = make_scheduler(name, "val_accuracy", "maximize", EPOCHS), Tune()
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
            elif comes_back.get(number) == epoch:
                scheduler.on_trial_error(tune, trials[number])
                scheduler.on_trial_complete(
                    tune, trials[number], EpochResult(0, True, reason="engine_died").to_tune()
                )
                trials[number] = Trial(trial_id=f"second {number}", config=assigned(number))
                scheduler.on_trial_add(tune, trials[number])
                assert scheduler.on_trial_result(tune, trials[number], result) == TrialScheduler.CONTINUE
    return reached


@pytest.mark.parametrize("name", [n for n in SCHEDULERS if n != "hyperband"])  # that one draws its brackets
@pytest.mark.parametrize("comes_back", [{0: 1}, {0: 2, 3: 2}, {0: 3, 2: 1, 3: 5}])
def test_trials_that_come_back_change_no_decision(name: str, comes_back: dict[int, int]) -> None:
    undisturbed = decisions(name, {})
    assert decisions(name, comes_back) == undisturbed
    assert len(set(undisturbed.values())) > 1 or name == "none"


def test_one_that_ended_without_a_number_is_not_compared_with() -> None:
    scheduler, tune = make_scheduler("median", "val_accuracy", "maximize", EPOCHS), Tune()
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
    assert scheduler.on_trial_result(tune, last, result) == TrialScheduler.CONTINUE  # none got as far
