"""Makes a scheduler of Ray Tune see a trial that comes back as the trial that it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler


class SchedulingByNumber(TrialScheduler):  # type: ignore[misc]
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
