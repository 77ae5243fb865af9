"""Translates Optuna's trials into our records, and our records into what Optuna stores. All functions are pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from optuna.trial import FrozenTrial, TrialState

from search.config.objectives import direction as direction_of
from search.config.objectives import values_at_best
from search.ledger.attributes import TrialAttributes, TrialKey
from search.ledger.sampling.reference_trials import is_reference
from search.records.metrics import EPOCH_METRICS, Direction
from search.records.record import Parameters, State, TrialRecord
from search.records.stats.importance import EvaluatedTrial
from trainables.epoch_metrics import EpochMetrics

STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class SearchObjectives:
    """By what the trials of a search are compared.

    Attributes:
        metric: name of the objective, or of the first one, among the epoch metrics.
        direction: of ``metric``.
        names: the names of several objectives, ``metric`` being the first; empty for one.
    """

    metric: str
    direction: Direction
    names: tuple[str, ...] = ()

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The directions of all objectives."""
        return tuple(direction_of(name) for name in self.names) or (self.direction,)

    def best_value(self, epochs: Iterable[EpochMetrics]) -> float | None:
        """Return the best value of ``metric`` in ``epochs``; None if it never was a finite number."""
        values = [value for epoch in epochs if math.isfinite(value := epoch.metric(self.metric))]
        if not values:
            return None
        return max(values) if self.direction == "maximize" else min(values)

    def values(self, epochs: Sequence[EpochMetrics], serving_costs: Mapping[str, float]) -> dict[str, float]:
        """Return the value of each of several objectives by its name; empty in a search with one.

        ``serving_costs`` may hold metrics of training too, as the objectives of an earlier epoch do: they are ignored.
        """
        if not self.names:
            return {}
        costs = {name: value for name, value in serving_costs.items() if name not in EPOCH_METRICS}
        return values_at_best(epochs, self.names, costs)

    def result(self, record: TrialRecord) -> float | list[float] | None:
        """Return what Optuna receives for a complete trial: a value, or one for each objective; None if one is not
        finite.
        """
        if not self.names:
            return record.value
        values = [record.objectives.get(name, math.nan) for name in self.names]
        return values if all(map(math.isfinite, values)) else None


def to_record(trial: FrozenTrial, objectives: SearchObjectives, method: str) -> TrialRecord:
    """Return the record of a trial.

    Args:
        trial: as Optuna has it.
        objectives: of the search.
        method: of a trial that records none and has none among its parameters.
    """
    known = TrialAttributes.read(trial.user_attrs)
    # A trial that is enqueued has no parameters yet; Optuna keeps the requested ones in an attribute of its own.
    requested = trial.system_attrs.get("fixed_params", {})
    params = trial.params or requested
    if is_reference(known.method):
        params = {**requested, **params}  # some may lie outside of the space, and Optuna lacks them
    return TrialRecord(
        number=trial.number,
        state=STATES[trial.state],
        method=known.method or params.get("method", method),
        params=params,
        value=objectives.best_value(known.epochs),
        epochs=known.epochs,
        reason=known.reason,
        error=known.error,
        seed=known.seed,
        started=to_utc(trial.datetime_start),
        ended=to_utc(trial.datetime_complete),
        stages=known.stages,
        cost=known.cost,
        retries=known.retries,
        batch_size=known.batch_size,
        node=known.node,
        origin=known.origin,
        objectives=objectives.values(known.epochs, known.serving_costs),
        head_init=known.head_init,
    )


def with_epoch(record: TrialRecord, epoch: EpochMetrics, objectives: SearchObjectives) -> TrialRecord:
    """Return the record after another epoch; the same one if it has that epoch already, as after a resumed trial's
    repetition.
    """
    if record.epochs and epoch.epoch <= record.epochs[-1].epoch:
        return record
    epochs = (*record.epochs, epoch)
    return replace(
        record,
        epochs=epochs,
        value=objectives.best_value(epochs),
        objectives=objectives.values(epochs, record.objectives),
    )


def intermediate_values(record: TrialRecord, metric: str) -> dict[int, float]:
    """Return the finite values of ``metric`` by epoch, as Optuna takes them."""
    values = {epoch.epoch: epoch.metric(metric) for epoch in record.epochs}
    return {epoch: value for epoch, value in values.items() if math.isfinite(value)}


def evaluated_trials(records: Iterable[TrialRecord], trials: Sequence[FrozenTrial]) -> list[EvaluatedTrial]:
    """Return the ended trials that have a value, for the importance of parameters.

    Trials that a scheduler stopped count with their best value so far: they were worse than others up to that epoch.
    Failed trials, reference trials, and those that did not receive all their parameters, are left out.
    """
    return [
        EvaluatedTrial(record.params, trials[record.number].distributions, record.value)
        for record in records
        if record.finished
        and not is_reference(record.method)
        and record.state != "failed"
        and record.value is not None
        and record.params.keys() == trials[record.number].distributions.keys()
    ]


def is_reference_trial(trial: FrozenTrial) -> bool:
    """Return whether samplers must not see ``trial``."""
    return is_reference(trial.user_attrs.get(TrialKey.METHOD))


def method_of(params: Parameters, default: str) -> str:
    """Return the method of a trial: a parameter where the search chooses among methods."""
    return str(params.get("method", default))


def trial_seed(seed: int, number: int) -> int:
    """Return the seed of a trial.

    It is a function of the search's seed and the trial's number, so that a retry repeats it.
    """
    # Searches with neighbouring seeds share no seed of a trial until one of them has a million trials. The
    # result fits a signed 32-bit integer.
    return (seed * 1_000_003 + number) % 2**31


def to_utc(moment: datetime | None) -> datetime | None:
    """Optuna's times are local and have no time zone."""
    return moment.astimezone(UTC) if moment else None
