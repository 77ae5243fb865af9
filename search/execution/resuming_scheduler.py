"""Wraps Tune's schedulers so that they fit trials that are retried and searches with several objectives.

:class:`ResumingScheduler` lets a scheduler see a retried trial as the trial that it was before, and compares trials
after equal shares of their training. With several objectives :class:`ParetoAwareScheduler` lets a scheduler, which sees
the first objective only, stop a trial only if another trial is better in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from search.config.objectives import values_at_best
from search.execution.engines.messages import EpochResult
from search.execution.trial_actor import TrialAssignment
from search.records.epoch_plan import EpochPlan
from search.records.metrics import EPOCH_METRICS
from search.records.pareto import objective_losses, weakly_dominates
from search.records.record import TrialRecord
from trainables.epoch_metrics import EpochMetrics


class ResumingScheduler(TrialScheduler):  # type: ignore[misc]
    """Passes events to a scheduler, with the first Tune trial that had the same number in the ledger.

    To Tune, a trial that is retried after a crash is a new trial. A scheduler compares trials with each other, so to
    it the retry must be the same trial: each trial counts once at each epoch.

    A trial that is done at its first report, such as a probe, was never at a point where it could be stopped. The
    scheduler does not learn of it, so that no trial in the middle of its training is compared with a finished one.

    Args:
        scheduler: decides.
        time_attr: the field by which ``scheduler`` compares trials; it is added to each result and holds the share of
            the trial's epochs that are done, above 0 and at most 1.
    """

    def __init__(self, scheduler: TrialScheduler, time_attr: str) -> None:
        super().__init__()
        self._scheduler, self._time_attr = scheduler, time_attr
        self._first_trials: dict[int, Trial | _EarlierTrial] = {}
        self._newest: dict[int, int] = {}

    def replay(self, trials: Iterable[TrialRecord], plan: EpochPlan) -> None:
        """Show the scheduler the trials of earlier runs of the command, so that it compares new trials with them.

        A trial that is resumed stays the trial that it was: only its later epochs may stop it.
        """
        for record in trials:
            done_at_once = record.state == "complete" and len(record.epochs) == 1
            if not record.epochs or done_at_once:
                continue
            trial = self._first_trials[record.number] = _EarlierTrial(f"earlier-{record.number}")
            self._newest[record.number] = record.epochs[-1].epoch
            for epoch in record.epochs:
                progress = min(1.0, epoch.epoch / plan.of(record.method))
                # Tune's schedulers decide nothing when a trial is complete, but they note its result.
                self._scheduler.on_trial_add(None, trial)
                self._scheduler.on_trial_complete(None, trial, {**vars(epoch), self._time_attr: progress})
            self._scheduler.on_trial_add(None, trial)

    @property
    def metric(self) -> str | None:
        """Delegate to the scheduler."""
        return self._scheduler.metric  # type: ignore[no-any-return]

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Delegate to the scheduler."""
        return bool(self._scheduler.set_search_properties(metric, mode, **spec))

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Add a trial, unless it is a retry of one that the scheduler knows."""
        number = _number(trial)
        if number not in self._first_trials:
            self._first_trials[number] = trial
            self._scheduler.on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Do nothing: the trial may be retried."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> str:
        """Return the scheduler's decision. An epoch that it knows, repeated after a resume, is not passed on."""
        if not self._is_new(trial, result):
            return str(TrialScheduler.CONTINUE)
        first, progress = self._first(trial), self._with_progress(trial, result)
        return str(self._scheduler.on_trial_result(tune_controller, first, progress))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> None:
        """Pass on a trial's last epoch. A trial that ended with a reason may be retried or has none to compare."""
        reported = EpochResult.from_tune(result)
        if _number(trial) in self._newest and (reported is None or reported.reason is None):
            progress = self._with_progress(trial, result)
            self._scheduler.on_trial_complete(tune_controller, self._first(trial), progress)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Do nothing: the trial may be retried."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Delegate to the scheduler."""
        return self._scheduler.choose_trial_to_run(tune_controller)

    def debug_string(self) -> str:
        """Delegate to the scheduler."""
        return str(self._scheduler.debug_string())

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: there is no restore."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: there is no restore."""

    def _first(self, trial: Trial) -> Trial | _EarlierTrial:
        return self._first_trials[_number(trial)]

    def _is_new(self, trial: Trial, result: Mapping[str, Any]) -> bool:
        number, epoch = _number(trial), int(result.get("epoch", 0))
        # A retried trial reports epochs of its checkpoint again; ASHA would count them as those of another trial.
        known = self._newest.get(number, 0)
        self._newest[number] = max(known, epoch)
        return epoch > known

    def _with_progress(self, trial: Trial, result: Mapping[str, Any]) -> dict[str, Any]:
        epochs = TrialAssignment.from_tune(trial.config).request.config.epochs
        return {**result, self._time_attr: min(1.0, result.get("epoch", 0) / epochs)}


@dataclass(frozen=True)
class _EarlierTrial:
    """Stands for the Tune trial that an earlier run of the command had. Schedulers tell trials apart by their ids."""

    trial_id: str


def _number(trial: Trial) -> int:
    return TrialAssignment.from_tune(trial.config).number


IsDominated = Callable[[int, EpochMetrics], bool]
"""Whether another trial is better than this one, given its number and its newest epoch."""


class ParetoAwareScheduler(ResumingScheduler):
    """Passes on a scheduler's decision to stop a trial only if ``is_dominated`` agrees."""

    def __init__(self, scheduler: TrialScheduler, time_attr: str, is_dominated: IsDominated) -> None:
        super().__init__(scheduler, time_attr)
        self._is_dominated = is_dominated

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> str:
        """Return the scheduler's decision, but CONTINUE for a trial that may still reach the Pareto front."""
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP and not self._is_dominated(
            _number(trial), EpochMetrics.from_result(result)
        ):
            return str(TrialScheduler.CONTINUE)
        return decision

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what refers to the ledger, which cannot be pickled.

        Tune pickles its scheduler for a restore that is never made.
        """
        return {name: value for name, value in vars(self).items() if name != "_is_dominated"}


def is_dominated(
    trials: Sequence[TrialRecord],
    trial: TrialRecord,
    newest: EpochMetrics,
    names: Sequence[str],
    plan: EpochPlan,
) -> bool:
    """Return whether another trial was at least as good in every objective after the same share of its training.

    Trials that failed, or ended without being comparable (diverged, out of memory), dominate none.

    Args:
        trials: all trials of the search.
        trial: the one that may be stopped.
        newest: the epoch that ``trial`` has just completed, which its ``epochs`` may not contain yet.
        names: of the objectives.
        plan: how many epochs each trial has.
    """
    share = newest.epoch / plan.of(trial.method)
    # Tune asks the scheduler before the searcher, so the ledger may not have the newest epoch yet.
    known = [epoch for epoch in trial.epochs if epoch.epoch < newest.epoch]
    own = _point(replace(trial, epochs=(*known, newest)), share, names, plan)
    others = (t for t in trials if t.number != trial.number and _comparable(t, share, plan))
    points = (_point(other, share, names, plan) for other in others)
    # A trial without a finite value in each objective is on no front, so the scheduler's decision stands.
    return own is None or any(point is not None and weakly_dominates(point, own) for point in points)


def _comparable(trial: TrialRecord, share: float, plan: EpochPlan) -> bool:
    if trial.state == "failed" or trial.reason in ("diverged", "out_of_memory"):
        return False
    return bool(trial.epochs) and trial.epochs[-1].epoch / plan.of(trial.method) >= share


def _point(
    trial: TrialRecord, share: float, names: Sequence[str], plan: EpochPlan
) -> tuple[float, ...] | None:
    # The metrics in ``objectives`` belong to the trial's newest epoch, which may be later than ``share``.
    # Only the serving costs do not change from epoch to epoch.
    costs = {name: value for name, value in trial.objectives.items() if name not in EPOCH_METRICS}
    epochs = [e for e in trial.epochs if e.epoch / plan.of(trial.method) <= share]
    return objective_losses(values_at_best(epochs, names, costs), names)
