"""Test when schedulers stop trials: never early in their training, and at equal shares of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from search.config.choices import SCHEDULERS
from search.execution.engines.messages import EpochResult, SessionSpec, TrialRequest, WorkbenchPaths
from search.execution.resuming_scheduler import ResumingScheduler, is_dominated
from search.execution.schedulers import FIRST_RUNG, make_scheduler
from search.execution.trial_actor import TrialAssignment
from search.records.epoch_plan import EpochPlan
from search.records.record import State, TrialRecord
from trainables.epoch_metrics import EpochMetrics
from trainables.training.schedule import WARMUP_SHARE
from trainables.training.trial_config import TrialConfig

STOPPING = sorted(name for name in SCHEDULERS if name != "none")


class Tune:
    """The part of Tune's controller that schedulers use."""

    def get_live_trials(self) -> set[Any]:
        return set()


class Trial(SimpleNamespace):
    """The part of Tune's trial that schedulers use."""

    def __hash__(self) -> int:
        return id(self)


class Trials:
    """Lets trials report to a scheduler as Tune does."""

    def __init__(self, scheduler: ResumingScheduler) -> None:
        self.scheduler, self.tune = scheduler, Tune()

    def add(self, number: int, epochs: int, method: str = "finetune") -> Trial:
        paths = WorkbenchPaths(Path("backbone"), Path("task"))
        request = TrialRequest(f"{method}-{number}", TrialConfig(method, {}, epochs=epochs), paths)
        config = TrialAssignment(number, SessionSpec("session"), request).to_tune()
        trial = Trial(trial_id=f"trial {number}", config=config)
        self.scheduler.on_trial_add(self.tune, trial)
        return trial

    def report(self, trial: Trial, epoch: int, value: float) -> bool:
        """Report an epoch that is not the last; return whether the trial is stopped."""
        result = {"epoch": epoch, "val_accuracy": value, "time_total_s": epoch}
        return bool(self.scheduler.on_trial_result(self.tune, trial, result) == TrialScheduler.STOP)

    def finish(self, trial: Trial, epoch: int, value: float) -> None:
        """Report the last epoch, which Tune does not show as a result but as the trial's end."""
        metrics = EpochMetrics(epoch, value, 1.0, 1.0, 1.0)
        self.scheduler.on_trial_complete(self.tune, trial, EpochResult(epoch, True, metrics).to_tune())

    def run(self, trial: Trial, epochs: int, values: Sequence[float]) -> int:
        """Train to the last of ``epochs`` unless the trial is stopped; return its last epoch."""
        for epoch, value in enumerate(values[:-1], start=1):
            if self.report(trial, epoch, value):
                return epoch
        self.finish(trial, epochs, values[-1])
        return epochs


def stopped_at(name: str, epochs: int) -> int:
    """Return the epoch at which a bad trial is stopped after five good ones."""
    trials = Trials(make_scheduler(name, "val_accuracy", "maximize"))
    for number in range(5):
        assert trials.run(trials.add(number, epochs), epochs, [0.5] * epochs) == epochs
    return trials.run(trials.add(9, epochs), epochs, [0.125] * epochs)


@pytest.mark.parametrize("name", STOPPING)
@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5, 12, 20, 60, 1000])
def test_no_trial_is_stopped_inside_its_warm_up_or_before_the_first_rung(name: str, epochs: int) -> None:
    assert stopped_at(name, epochs) / epochs >= FIRST_RUNG >= 2 * WARMUP_SHARE


@pytest.mark.parametrize(("epochs", "last"), [(2, 1), (3, 1), (5, 2), (6, 2), (20, 7), (30, 10)])
def test_successive_halving_stops_a_bad_trial_at_the_first_rung(epochs: int, last: int) -> None:
    assert stopped_at("asha", epochs) == last


def test_the_only_epoch_of_a_trial_stops_nothing() -> None:
    assert stopped_at("asha", 1) == 1


def test_a_trial_that_passes_the_rung_trains_to_its_end() -> None:
    trials = Trials(make_scheduler("asha", "val_accuracy", "maximize"))
    for number in range(3):
        assert trials.run(trials.add(number, 20), 20, [0.5] * 20) == 20
    assert trials.run(trials.add(9, 20), 20, [0.6] * 10 + [0.1] * 10) == 20


def test_trials_with_other_numbers_of_epochs_are_compared_after_equal_shares() -> None:
    trials = Trials(make_scheduler("asha", "val_accuracy", "maximize"))
    for number in range(3):
        long = trials.add(number, 20)
        assert not any(trials.report(long, epoch, 0.5 if epoch < 7 else 0.9) for epoch in range(1, 8))
    short = trials.add(4, 10, "align")
    # After three of ten epochs the trial is worse than the others were at the rung, but it is not there yet.
    assert not any(trials.report(short, epoch, 0.1) for epoch in (1, 2, 3))
    assert trials.report(short, 4, 0.8)


def test_a_trial_that_is_done_at_its_first_report_stops_no_other() -> None:
    trials = Trials(make_scheduler("asha", "val_accuracy", "maximize"))
    trials.finish(trials.add(0, 20, "probe"), 1, 0.99)
    assert trials.run(trials.add(1, 20), 20, [0.5] * 20) == 20


def record(number: int, values: Sequence[float], state: State, method: str = "finetune") -> TrialRecord:
    curve = tuple(EpochMetrics(e, v, 1.0, 1.0, 1.0) for e, v in enumerate(values, start=1))
    return TrialRecord(number, state, method, {}, epochs=curve)


@pytest.mark.parametrize("name", ["asha", "median"])
def test_new_trials_are_compared_with_those_of_an_earlier_run_of_the_command(name: str) -> None:
    trials = Trials(make_scheduler(name, "val_accuracy", "maximize"))
    earlier = [record(number, [0.9] * 20, "complete") for number in range(4)]
    trials.scheduler.replay([*earlier, record(4, [], "waiting")], EpochPlan(20))
    assert trials.run(trials.add(5, 20), 20, [0.1] * 20) == 7


def test_a_resumed_trial_keeps_its_place_at_the_rungs() -> None:
    trials = Trials(make_scheduler("asha", "val_accuracy", "maximize"))
    earlier = [record(number, [0.9] * 20, "complete") for number in range(3)]
    # The rung let one trial pass, whatever the others became since. The other has not reached it yet.
    passed, young = record(3, [0.5] * 9, "running"), record(4, [0.5] * 4, "running")
    trials.scheduler.replay([*earlier, passed, young], EpochPlan(20))
    resumed = trials.add(3, 20)
    assert not any(trials.report(resumed, epoch, 0.5) for epoch in range(9, 20))  # epoch 9 is reported again
    resumed = trials.add(4, 20)
    assert not any(trials.report(resumed, epoch, 0.5) for epoch in range(4, 7))
    assert trials.report(resumed, 7, 0.5)


def test_a_finished_probe_of_an_earlier_run_stops_no_trial() -> None:
    trials = Trials(make_scheduler("asha", "val_accuracy", "maximize"))
    trials.scheduler.replay([record(0, [0.99], "complete", "probe")], EpochPlan(20))
    assert trials.run(trials.add(1, 20), 20, [0.5] * 20) == 20


def test_with_several_objectives_trials_are_compared_after_equal_shares() -> None:
    plan = EpochPlan(20, {"align": 10})
    names = ("val_accuracy", "val_loss")
    trial = record(0, [0.5] * 4, "running")
    late = record(1, [0.1, 0.1, 0.9], "running", "align")  # good after 0.3 of its training, not after 0.25
    newest = EpochMetrics(5, 0.5, 1.0, 1.0, 1.0)
    assert not is_dominated([trial, late], trial, newest, names, plan)
    early = record(2, [0.1, 0.9, 0.9], "running", "align")
    assert is_dominated([trial, late, early], trial, newest, names, plan)
