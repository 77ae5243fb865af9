"""Makes a scheduler of Ray Tune see a trial that comes back as the trial that it was.

With several objectives a scheduler, which sees the first alone, may only stop trials that are beaten in all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from search.config.objectives import values_at_best
from search.records.metrics import EPOCH_METRICS
from search.records.pareto import objective_losses, weakly_dominates
from search.records.record import TrialRecord
from trainables.epoch_metrics import EpochMetrics


class ResumingScheduler(TrialScheduler):  # type: ignore[misc]
    """Passes on what happens, but under the first of Ray Tune's trials that had the ledger's number.

    To Ray Tune a trial that comes back after its process has died is a new one. To a scheduler that compares trials it
    must not be: each trial counts once at each epoch.
    """

    def __init__(self, scheduler: TrialScheduler, time_attr: str) -> None:
        super().__init__()
        self._scheduler, self._time_attr = scheduler, time_attr
        self._firsts: dict[int, Trial] = {}
        self._seen: dict[int, float] = {}

    @property
    def metric(self) -> str | None:
        """As of the scheduler."""
        return self._scheduler.metric  # type: ignore[no-any-return]

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """As the scheduler does."""
        return bool(self._scheduler.set_search_properties(metric, mode, **spec))

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A trial, or one that comes back, which the scheduler has already."""
        number = trial.config["number"]
        if number not in self._firsts:
            self._firsts[number] = trial
            self._scheduler.on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing: it may come back."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> str:
        """What the scheduler decides on an epoch; one that it knows changes nothing."""
        if not self._new(trial, result):
            return str(TrialScheduler.CONTINUE)
        return str(self._scheduler.on_trial_result(tune_controller, self._first(trial), result))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> None:
        """A trial's last epoch; one that ended without may come back, or has nothing to compare."""
        if "reason" not in result:
            self._scheduler.on_trial_complete(tune_controller, self._first(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing: it may come back."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """As the scheduler does."""
        return self._scheduler.choose_trial_to_run(tune_controller)

    def debug_string(self) -> str:
        """As of the scheduler."""
        return str(self._scheduler.debug_string())

    def save(self, checkpoint_path: str) -> None:
        """Nothing: there is no restore."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: there is no restore."""

    def _first(self, trial: Trial) -> Trial:
        return self._firsts[trial.config["number"]]

    def _new(self, trial: Trial, result: Mapping[str, Any]) -> bool:
        number, time = trial.config["number"], result.get(self._time_attr, 0)
        known = self._seen.get(number, 0)
        self._seen[number] = max(known, time)
        return bool(time > known)


IsDominated = Callable[[int, EpochMetrics], bool]


class ParetoAwareScheduler(ResumingScheduler):
    """Passes on a scheduler's wish to stop a trial only if ``is_dominated`` (by number and newest epoch) agrees."""

    def __init__(self, scheduler: TrialScheduler, time_attr: str, beaten: IsDominated) -> None:
        super().__init__(scheduler, time_attr)
        self._beaten = beaten

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> str:
        """What the scheduler decides, but CONTINUE for a trial that may yet come to the front."""
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP and not self._beaten(
            trial.config["number"], EpochMetrics.from_result(result)
        ):
            return str(TrialScheduler.CONTINUE)
        return decision

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune pickles its scheduler for a restore that is never made; the ledger can't be."""
        return {name: value for name, value in vars(self).items() if name != "_beaten"}


def is_dominated(
    trials: Sequence[TrialRecord], trial: TrialRecord, newest: EpochMetrics, names: Sequence[str]
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
    return own is None or any(point is not None and weakly_dominates(point, own) for point in points)


def _comparable(trial: TrialRecord, epoch: int) -> bool:
    if trial.state == "failed" or trial.reason in ("diverged", "out_of_memory"):
        return False
    return bool(trial.epochs) and trial.epochs[-1].epoch >= epoch


def _point(trial: TrialRecord, epoch: int, names: Sequence[str]) -> tuple[float, ...] | None:
    costs = {name: value for name, value in trial.objectives.items() if name not in EPOCH_METRICS}
    epochs = [e for e in trial.epochs if e.epoch <= epoch]
    return objective_losses(values_at_best(epochs, names, costs), names)
