"""With several objectives a scheduler, which sees the first alone, may only stop trials that are beaten in all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from search.config.objectives import values_at_best
from search.execution.resuming_scheduler import SchedulingByNumber
from search.records.pareto import as_good, losses
from search.records.record import METRICS, EpochRecord, TrialRecord

Beaten = Callable[[int, EpochRecord], bool]


class SparingTheFront(SchedulingByNumber):
    """Passes on a scheduler's wish to stop a trial only if ``beaten`` (by number and newest epoch) agrees."""

    def __init__(self, scheduler: TrialScheduler, time_attr: str, beaten: Beaten) -> None:
        super().__init__(scheduler, time_attr)
        self._beaten = beaten

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> str:
        """What the scheduler decides, but CONTINUE for a trial that may yet come to the front."""
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP and not self._beaten(
            trial.config["number"], EpochRecord.of(result)
        ):
            return str(TrialScheduler.CONTINUE)
        return decision

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune pickles its scheduler for a restore that is never made; the ledger can't be."""
        return {name: value for name, value in vars(self).items() if name != "_beaten"}


def beaten(
    trials: Sequence[TrialRecord], trial: TrialRecord, newest: EpochRecord, names: Sequence[str]
) -> bool:
    """Whether some other of ``trials`` is, after as many epochs as ``trial``, at least as good in every objective.

    Trials that failed, or ended without being comparable (diverged, out of memory), beat nobody.

    Args:
        newest: the epoch that ``trial`` has just run, which it may not have in ``epochs`` yet.
    """
    known = [epoch for epoch in trial.epochs if epoch.epoch < newest.epoch]
    own = _point(replace(trial, epochs=(*known, newest)), newest.epoch, names)
    others = (t for t in trials if t.number != trial.number and _comparable(t, newest.epoch))
    points = (_point(other, newest.epoch, names) for other in others)
    return own is None or any(point is not None and as_good(point, own) for point in points)


def _comparable(trial: TrialRecord, epoch: int) -> bool:
    if trial.state == "failed" or trial.reason in ("diverged", "out_of_memory"):
        return False
    return bool(trial.epochs) and trial.epochs[-1].epoch >= epoch


def _point(trial: TrialRecord, epoch: int, names: Sequence[str]) -> tuple[float, ...] | None:
    costs = {name: value for name, value in trial.objectives.items() if name not in METRICS}
    epochs = [e for e in trial.epochs if e.epoch <= epoch]
    return losses(values_at_best(epochs, names, costs), names)
