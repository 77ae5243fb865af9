"""The ledger: an Optuna study in durable storage, the single source of truth of a search.

A trial is written here before it starts and when it ends. Only the driver writes its trials. Reading goes
through :meth:`Ledger.trials`, which keeps its own copy up to date, so that a view costs no query.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from search.config.objectives import direction as direction_of
from search.config.objectives import values_at_best
from search.ledger.buffered_storage import BufferedStorage
from search.ledger.database import (
    open_for_reading,
    open_for_writing,
    rename_study,
    set_objective_names,
    sqlite_url,
)
from search.ledger.optuna_tables import Fence
from search.ledger.sampling.proposals import ProposalChain, ProposalSource
from search.ledger.sampling.samplers import make_sampler
from search.ledger.sampling.tpe import new_shared_space
from search.ledger.trial_attributes import json_safe, newest_curve_chunk, read_cost, read_curve, to_utc
from search.records.metrics import EPOCH_METRICS, Direction
from search.records.record import Cost, Interval, Parameters, State, TrialRecord
from search.records.stats.importance import EvaluatedTrial, importance_intervals, importances
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import LedgerError

__all__ = ["Ledger", "Suggest", "check_same_settings", "rename_study", "sqlite_url", "trial_seed"]

STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}

INFEASIBLE_REASONS = ("diverged", "out_of_memory")
"""Reasons that a configuration is to blame for: samplers are told to keep away from its like."""

CONSTRAINT_NAME = "trains"

SERVING_COSTS_KEY = "objectives"
"""Attribute of a trial: what its model costs to serve, where that is an objective."""

Suggest = Callable[[Trial], Parameters]
ServingCosts = Callable[[Parameters], Mapping[str, float]]
"""What a model with these parameters costs to serve, by the objectives of that kind."""


class Ledger:
    """One search's study.

    Args:
        url: SQLAlchemy URL of the storage.
        name: the study's name.
        direction: of the objective; of several, of the first.
        metric: name of the objective, or of the first, among the epoch metrics.
        method: recorded with each trial that has none of its own among its parameters.
        sampler: name of the sampler.
        seed: of the search; trials derive theirs from it.
        create: begin the study if there is none; otherwise that is an error.
        objectives: names of several objectives, ``metric`` being the first; empty for one.
        fence: asked first in each transaction (:class:`search.ledger.driver_lease.Lease`); only a driver has one.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        direction: Direction,
        metric: str,
        method: str,
        sampler: str,
        seed: int,
        create: bool = True,
        objectives: tuple[str, ...] = (),
        fence: Fence | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.url, self.name = url, name
        self._metric, self._direction, self._method = metric, direction, method
        self._objectives = objectives
        self.serving_costs: ServingCosts = lambda params: {}
        """Asked for each trial before it begins; whoever drives a search with several objectives sets it."""
        self._sampler, self._seed = sampler, seed
        self._storage: BufferedStorage | None = None
        if create:
            self._study, self._storage = open_for_writing(url, name, directions(direction, objectives), fence)
            set_objective_names(self._study, objectives or (metric,))
        else:
            self._study = open_for_reading(url, name)
        self._common = new_shared_space()
        self.proposal_source: ProposalSource = ProposalChain()
        """Asked for each new trial that nobody has enqueued."""
        self._live: dict[int, Trial] = {}
        self._records: dict[int, TrialRecord] = {}
        self._weighed: tuple[list[EvaluatedTrial], dict[str, Interval]] | None = None
        self._read()

    @contextmanager
    def wal_mode(self) -> Iterator[None]:
        """While trials run, a SQLite file keeps a log beside it: commits need not wait for the disk."""
        if self._storage is None:
            raise LedgerError(f"ledger: expected one that was opened to be written, received {self.name!r}")
        with self._storage.wal_mode():
            yield

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials by number."""
        return tuple(self._records.values())  # trials are found and made in the order of their numbers

    def trial(self, number: int) -> TrialRecord:
        """The trial of this number."""
        return self._records[number]

    def set_objectives(self, metric: str, direction: Direction, objectives: tuple[str, ...] = ()) -> None:
        """Take other objectives for the trials' values: those that a reader finds in the ledger."""
        self._metric, self._direction, self._objectives = metric, direction, objectives
        self._read()

    def interrupted(self) -> list[int]:
        """Trials that were running when the last driver ended; they go on before anything new starts."""
        return [n for n, r in self._records.items() if r.state == "running" and n not in self._live]

    def running(self) -> list[int]:
        """Trials that this driver has started and not finished."""
        return sorted(self._live)

    def started(self) -> int:
        """How many trials have ever been started."""
        return len(self._records) - len(self._queue)

    def enqueue(self, configurations: Sequence[Parameters], origins: Sequence[str] = ()) -> None:
        """Put configurations in front; those that an earlier run of the same command enqueued are left out.

        ``origins`` say where they come from, each another place; without, they are the user's own.
        """
        key = "origin" if origins else "enqueued"
        known = {t.user_attrs[key] for t in self._study.get_trials(deepcopy=False) if key in t.user_attrs}
        for line, params in enumerate(configurations):
            place = origins[line] if origins else line
            if place not in known:
                self._study.enqueue_trial(dict(params), user_attrs={key: place})
        self._write()
        self._read()

    def resume(self, number: int, suggest: Suggest) -> TrialRecord:
        """Take up an interrupted trial under its number; parameters that were not yet written are suggested."""
        frozen = self._frozen(number)
        return self._begin(Trial(self._study, frozen._trial_id), suggest)

    def start(self, suggest: Suggest) -> TrialRecord:
        """Ask for the next trial and write it down, before anything runs.

        What a guide proposes is fixed, in the trial as in one that a user enqueued.
        """
        if not self._queue:
            proposal = self.proposal_source.propose(self._seed, self.started(), self.trials)
            if proposal is not None:
                self._study.enqueue_trial(dict(proposal.params), user_attrs={"origin": proposal.origin})
        self._study.sampler = make_sampler(self._sampler, self._seed, self.started(), self._common)
        return self._begin(self._study.ask(), suggest)

    def retry(self, number: int, *, retries: int, batch_size: int | None) -> None:
        """Write down that a running trial goes on after a fault of its own: how often it did so, and how."""
        trial = self._live[number]
        for key, value in (("retries", retries), ("batch_size", batch_size)):
            if value:
                trial.set_user_attr(key, value)
        self._write()
        self._update(number, retries=retries, batch_size=batch_size)

    def report(self, number: int, epoch: EpochMetrics) -> None:
        """Write one epoch's metrics; an epoch that is known already is left as it is."""
        self._take(number, epoch)
        self._write()

    def record_node(self, number: int, node: str) -> None:
        """Take note of the node on which a running trial is; it is written with what is written next."""
        if number in self._live and self._records[number].node != node:
            self._live[number].set_user_attr("node", node)
            self._update(number, node=node)

    def record_cost(self, number: int, stages: Mapping[str, float], cost: Cost) -> None:
        """Take note of what a running trial has cost so far; it is written when the trial ends."""
        self._update(number, stages=json_safe(stages), cost=json_safe(cost))

    def finish(
        self,
        number: int,
        state: State,
        *,
        reason: str | None = None,
        error: str | None = None,
        epoch: EpochMetrics | None = None,
    ) -> None:
        """Write how a trial ended: complete, pruned (with its reason) or failed; and what it cost, if it said.

        ``epoch`` is its last one, if the ledger may not know that yet.
        """
        if epoch is not None:
            self._take(number, epoch)
        record, trial = self._records[number], self._live.pop(number)
        if not self._objectives:  # of several, Optuna takes no epochs
            self._report_all(trial, record)
        known = {"stages": dict(record.stages), "cost": dict(record.cost)} if record.stages else None
        for key, fact in (("spent", known), ("reason", reason), ("error", error)):
            if fact:
                trial.set_user_attr(key, fact)
        if reason in INFEASIBLE_REASONS:
            trial.set_constraint(CONSTRAINT_NAME, 1.0)
        values = self._told(record)
        if state == "complete" and values is not None:
            told = self._study.tell(trial, values)
        elif state in ("complete", "pruned"):
            told = self._study.tell(trial, state=TrialState.PRUNED)
        else:
            told = self._study.tell(trial, state=TrialState.FAIL)
        self._write()
        self._update(
            number,
            state=STATES[told.state],
            reason=reason,
            error=error,
            ended=to_utc(told.datetime_complete),
        )

    def set_attribute(self, key: str, value: object) -> None:
        """Keep a JSON value with the study."""
        self._study.set_user_attr(key, value)

    def attribute(self, key: str) -> Any:
        """A value that :meth:`set_attribute` kept, or None."""
        return self._study.user_attrs.get(key)

    def importances(self) -> dict[str, float]:
        """Share of each parameter in what makes trials good (PED-ANOVA); empty with too few trials."""
        return importances(self._judged(), self._direction)

    def importance_intervals(self) -> dict[str, Interval]:
        """:meth:`importances` with 95 % intervals; takes a second, the first time."""
        judged = self._judged()
        if self._weighed is None or self._weighed[0] != judged:
            self._weighed = judged, importance_intervals(judged, self._direction)
        return self._weighed[1]

    def _judged(self) -> list[EvaluatedTrial]:
        """Trials that ended with a value. Those that a scheduler stopped were worse than others as far as they got."""
        frozen = self._study.get_trials(deepcopy=False)
        ended = [r for r in self._records.values() if r.finished and r.state != "failed"]
        return [
            EvaluatedTrial(r.params, frozen[r.number].distributions, r.value)
            for r in ended
            if r.value is not None and r.params.keys() == frozen[r.number].distributions.keys()
        ]

    def _read(self) -> None:
        for frozen in self._study.get_trials(deepcopy=False):
            self._records[frozen.number] = self._to_record(frozen)
        self._queue = {n for n, r in self._records.items() if r.state == "waiting"}

    def _write(self) -> None:
        if self._storage is not None:
            self._storage.flush()

    def _begin(self, trial: Trial, suggest: Suggest) -> TrialRecord:
        params = suggest(trial)
        number = trial.number
        seed = trial_seed(self._seed, number)
        if "seed" not in trial.user_attrs:
            trial.set_user_attr("method", params.get("method", self._method))
            trial.set_user_attr("seed", seed)
        if self._objectives and SERVING_COSTS_KEY not in trial.user_attrs:
            trial.set_user_attr(SERVING_COSTS_KEY, dict(self.serving_costs(params)))
        self._write()
        self._live[number] = trial
        self._queue.discard(number)
        known = self._records.get(number)
        record = TrialRecord(
            number=number,
            state="running",
            method=str(params.get("method", self._method)),
            params=dict(params),
            seed=seed,
            epochs=known.epochs if known else (),
            value=known.value if known else None,
            started=to_utc(trial.datetime_start),
            retries=known.retries if known else 0,
            batch_size=known.batch_size if known else None,
            node=known.node if known else None,
            origin=trial.user_attrs.get("origin"),
            objectives=self._values(known.epochs if known else (), trial.user_attrs),
        )
        self._records[number] = record
        return record

    def _take(self, number: int, epoch: EpochMetrics) -> None:
        known = self._records[number].epochs
        if not known or epoch.epoch > known[-1].epoch:
            epochs = (*known, epoch)
            self._live[number].set_user_attr(*newest_curve_chunk(epochs))
            objectives = self._values(epochs, {SERVING_COSTS_KEY: self._records[number].objectives})
            self._update(number, epochs=epochs, value=self._best(epochs), objectives=objectives)

    def _report_all(self, trial: Trial, record: TrialRecord) -> None:
        """Tell Optuna the objective of every epoch: it asks for none before the trial has ended."""
        known = self._frozen(record.number).intermediate_values
        for epoch in record.epochs:
            value = epoch.metric(self._metric)
            if math.isfinite(value) and epoch.epoch not in known:
                trial.report(value, epoch.epoch)

    def _update(self, number: int, **changes: Any) -> None:
        record = self._records[number]
        self._records[number] = TrialRecord(**{**vars(record), **changes})

    def _frozen(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def _best(self, epochs: tuple[EpochMetrics, ...]) -> float | None:
        values = [v for e in epochs if math.isfinite(v := e.metric(self._metric))]
        if not values:
            return None
        return max(values) if self._direction == "maximize" else min(values)

    def _values(self, epochs: tuple[EpochMetrics, ...], attributes: Mapping[str, Any]) -> dict[str, float]:
        if not self._objectives:
            return {}
        costs = {
            name: value
            for name, value in attributes.get(SERVING_COSTS_KEY, {}).items()
            if name not in EPOCH_METRICS
        }
        return values_at_best(epochs, self._objectives, costs)

    def _told(self, record: TrialRecord) -> float | list[float] | None:
        """What Optuna is told of a trial that is complete; None if something of it is no number."""
        if not self._objectives:
            return record.value
        values = [record.objectives.get(name, math.nan) for name in self._objectives]
        return values if all(map(math.isfinite, values)) else None

    def _to_record(self, frozen: FrozenTrial) -> TrialRecord:
        attrs = frozen.user_attrs
        epochs = read_curve(attrs)
        params = frozen.params or frozen.system_attrs.get("fixed_params", {})
        return TrialRecord(
            number=frozen.number,
            state=STATES[frozen.state],
            method=attrs.get("method", params.get("method", self._method)),
            params=params,
            value=self._best(epochs),
            epochs=epochs,
            reason=attrs.get("reason"),
            error=attrs.get("error"),
            seed=attrs.get("seed", 0),
            started=to_utc(frozen.datetime_start),
            ended=to_utc(frozen.datetime_complete),
            retries=attrs.get("retries", 0),
            batch_size=attrs.get("batch_size"),
            node=attrs.get("node"),
            origin=attrs.get("origin"),
            objectives=self._values(epochs, attrs),
            **read_cost(attrs),
        )


def directions(first: Direction, objectives: tuple[str, ...]) -> tuple[Direction, ...]:
    """Of all objectives of a study: ``first`` alone, or those of several ``objectives``."""
    return tuple(direction_of(name) for name in objectives) or (first,)


def trial_seed(seed: int, number: int) -> int:
    """Seed of a trial: a function of the search's seed and the trial's number."""
    return (seed * 1_000_003 + number) % 2**31


def check_same_settings(ledger: Ledger, identity: Mapping[str, object]) -> None:
    """Compare what was asked for with what the ledger was begun with; begin it if it is new.

    Raises:
        LedgerError: they contradict; the message spells out each difference.
    """
    known = ledger.attribute("identity")
    asked = json.loads(json.dumps(identity))
    if known is None:
        ledger.set_attribute("identity", asked)
        return
    different = [k for k in sorted({*known, *asked}) if known.get(k) != asked.get(k)]
    if different:
        lines = "\n".join(
            f"  {k}: expected {_said(known.get(k))}, received {_said(asked.get(k))}" for k in different
        )
        raise LedgerError(
            f"name: the search {ledger.name!r} was begun with other settings:\n{lines}\n"
            "Repeat them to go on with it, or choose another --name."
        )


def _said(value: object) -> str:
    return "none" if value is None else repr(value)
