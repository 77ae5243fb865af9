"""The ledger: an Optuna study in durable storage, the single source of truth of a search.

It holds which trials exist, with which parameters, and how each ended. A trial is written before it starts, so that a
driver which is killed at any moment finds it again, and when it ends. Only the driver writes trials. Reading goes
through :attr:`Ledger.trials`, a copy in memory that is kept up to date, so that a view costs no query.

This module makes all calls to Optuna; :mod:`search.ledger.trial_records` translates between Optuna's trials and our
records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from search.ledger.attributes import StudyKey, TrialKey, finite_rounded, newest_curve_chunk, spent_value
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
from search.ledger.sampling.reference_trials import ReferenceBlindSampler, is_reference
from search.ledger.sampling.samplers import make_sampler
from search.ledger.sampling.tpe import new_shared_space
from search.ledger.trial_records import (
    STATES,
    SearchObjectives,
    evaluated_trials,
    intermediate_values,
    is_reference_trial,
    method_of,
    to_record,
    to_utc,
    trial_seed,
    with_epoch,
)
from search.records.metrics import Direction
from search.records.record import Cost, Interval, Parameters, State, TrialRecord
from search.records.stats.importance import EvaluatedTrial, importance_intervals, importances
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import LedgerError

__all__ = ["Ledger", "Suggest", "check_same_settings", "rename_study", "sqlite_url", "trial_seed"]

INFEASIBLE_REASONS = ("diverged", "out_of_memory")
"""Reasons for which a trial's configuration is to blame. Samplers avoid configurations like it."""

CONSTRAINT_NAME = "trains"
"""Name of the constraint that a trial violates if it ended for one of these reasons."""

Suggest = Callable[[Trial], Parameters]
"""Suggests all parameters of a trial, and returns them with those that are fixed."""

ServingCosts = Callable[[Parameters], Mapping[str, float]]
"""Returns what a model with these parameters costs to serve: the objectives that training does not change, by name."""


class Ledger:
    """The trials of one search.

    Args:
        url: SQLAlchemy URL of the database.
        name: name of the study.
        direction: direction of the objective, or of the first one.
        metric: name of the objective, or of the first one, among the epoch metrics.
        method: recorded with each trial that has no method among its parameters.
        sampler: name of the sampler (:data:`search.config.choices.SAMPLERS`).
        seed: the search's seed; the seeds of trials and proposals are functions of it.
        create: create the study if there is none. With False the ledger is read only and must exist.
        objectives: names of several objectives, ``metric`` being the first; empty for one.
        fence: called first in each transaction (:meth:`search.ledger.driver_lease.Lease.fence`); only the driver of a
            search in a shared database has one.

    Raises:
        LedgerError: the database can't be opened, or has no such study.
    """

    serving_costs: ServingCosts
    """Called for each trial before it starts. The driver of a search with several objectives sets it."""

    proposal_source: ProposalSource
    """May propose parameters of each new trial that the user has not enqueued."""

    head_init: str
    """What the heads of new trials start from, unless their parameters say so."""

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
        self._objectives = SearchObjectives(metric, direction, objectives)
        self._method, self._sampler, self._seed = method, sampler, seed
        self._storage: BufferedStorage | None = None
        if create:
            self._study, self._storage = open_for_writing(url, name, self._objectives.directions, fence)
            set_objective_names(self._study, objectives or (metric,))
        else:
            self._study = open_for_reading(url, name)
        self._shared_space = new_shared_space()
        self.serving_costs = lambda params: {}
        self.proposal_source = ProposalChain()
        self.head_init = "random"
        self._live: dict[int, Trial] = {}
        self._records: dict[int, TrialRecord] = {}
        self._intervals: tuple[list[EvaluatedTrial], dict[str, Interval]] | None = None
        self._read()

    @contextmanager
    def wal_mode(self) -> Iterator[None]:
        """Keep a write-ahead log for a SQLite file meanwhile, so that commits need not wait for the disk."""
        with self._writable.wal_mode():
            yield

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials by number."""
        return tuple(self._records.values())  # they are read and added in the order of their numbers

    def trial(self, number: int) -> TrialRecord:
        """Return the trial of this number."""
        return self._records[number]

    def set_objectives(self, metric: str, direction: Direction, objectives: tuple[str, ...] = ()) -> None:
        """Compare trials by other objectives than before. A reader learns them only from the ledger itself."""
        self._objectives = SearchObjectives(metric, direction, objectives)
        self._read()

    def interrupted(self) -> list[int]:
        """Numbers of the trials that were running when the last driver ended. They are resumed before new ones
        start."""
        return [n for n, r in self._records.items() if r.state == "running" and n not in self._live]

    def running(self) -> list[int]:
        """Numbers of the trials that this driver has started and not finished."""
        return sorted(self._live)

    def started(self) -> int:
        """Return how many trials have ever been started."""
        return len(self._records) - len(self._queue)

    def enqueue(self, configurations: Sequence[Parameters], origins: Sequence[str] = ()) -> None:
        """Add trials that are started before the sampler proposes any.

        A driver that resumes a search calls this again with the same arguments. Configurations that it finds in the
        ledger, by their place in the list or by their origin, are not added a second time.

        Args:
            configurations: some or all parameters of each trial; the sampler proposes the others.
            origins: where each configuration comes from, all different; without, they are the user's own.
        """
        key = TrialKey.ORIGIN if origins else TrialKey.ENQUEUED
        known = {t.user_attrs[key] for t in self._frozen_trials() if key in t.user_attrs}
        for index, params in enumerate(configurations):
            label = origins[index] if origins else index
            if label not in known:
                self._study.enqueue_trial(dict(params), user_attrs={key: label})
        self._write()
        self._read()

    def enqueue_references(self, configurations: Sequence[Parameters], method: str) -> None:
        """Add trials of a reference method, each with exactly these parameters.

        They belong before all other trials, so a ledger that has any trial already stays as it is.

        Args:
            configurations: all parameters of each trial.
            method: of the trials.
        """
        if self._records:
            return
        for params in configurations:
            self._study.enqueue_trial(dict(params), user_attrs={TrialKey.METHOD: method})
        # One transaction: a driver that is killed leaves all of them or none.
        self._write()
        self._read()

    def resume(self, number: int, suggest: Suggest) -> TrialRecord:
        """Continue an interrupted trial under its number. Parameters that were not written yet are suggested now."""
        storage = self._writable
        study_id = storage.get_study_id_from_name(self.name)
        trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, number)
        return self._begin(Trial(self._study, trial_id), suggest)

    def start(self, suggest: Suggest) -> TrialRecord:
        """Begin the next trial and write it, before anything runs.

        The next trial is the first one in the queue, or what the proposal source proposes, or else the sampler's.
        """
        if not self._queue:
            proposal = self.proposal_source.propose(self._seed, self.started(), self.trials)
            if proposal is not None:
                # ``ask`` takes a waiting trial before it calls the sampler, so the proposal becomes the trial
                # that begins below. Nothing is written before that: a killed driver leaves no proposal in the
                # queue.
                attributes = {TrialKey.ORIGIN: proposal.origin}
                self._study.enqueue_trial(dict(proposal.params), user_attrs=attributes)
        sampler = make_sampler(self._sampler, self._seed, self.started(), self._shared_space)
        self._study.sampler = ReferenceBlindSampler(sampler, is_reference_trial)
        return self._begin(self._study.ask(), suggest)

    def retry(self, number: int, *, retries: int, batch_size: int | None) -> None:
        """Write that a running trial is resumed after a failure of its own.

        ``retries`` is how often this has happened, ``batch_size`` the trial's own from now on (None: the search's).
        """
        trial = self._live[number]
        # Zero and None are not written, because readers take a missing attribute for them.
        for key, value in ((TrialKey.RETRIES, retries), (TrialKey.BATCH_SIZE, batch_size)):
            if value:
                trial.set_user_attr(key, value)
        self._write()
        self._update(number, retries=retries, batch_size=batch_size)

    def report(self, number: int, epoch: EpochMetrics) -> None:
        """Write one epoch's metrics. An epoch that the ledger has already is left as it is."""
        self._add_epoch(number, epoch)
        self._write()

    def record_node(self, number: int, node: str) -> None:
        """Note the node on which a running trial is. It is written together with the next change."""
        if number in self._live and self._records[number].node != node:
            self._live[number].set_user_attr(TrialKey.NODE, node)
            self._update(number, node=node)

    def record_cost(self, number: int, stages: Mapping[str, float], cost: Cost) -> None:
        """Note what a running trial has cost so far. It is written when the trial ends."""
        self._update(number, stages=finite_rounded(stages), cost=finite_rounded(cost))

    def finish(
        self,
        number: int,
        state: State,
        *,
        reason: str | None = None,
        error: str | None = None,
        epoch: EpochMetrics | None = None,
    ) -> None:
        """Write how a trial ended, and what it cost.

        Args:
            number: of the trial.
            state: ``complete``, ``pruned`` or ``failed``. A complete trial without a finite value becomes a pruned one,
                because Optuna takes no other values.
            reason: a short word, for a trial that is not complete.
            error: the traceback, if there is one.
            epoch: the trial's last epoch, if the ledger may not have it yet.
        """
        if epoch is not None:
            self._add_epoch(number, epoch)
        record, trial = self._records[number], self._live.pop(number)
        if not self._objectives.names:  # Optuna takes no intermediate values with several objectives
            self._report_epochs(trial, record)
        spent = spent_value(record.stages, record.cost) if record.stages else None
        for key, value in ((TrialKey.SPENT, spent), (TrialKey.REASON, reason), (TrialKey.ERROR, error)):
            if value:
                trial.set_user_attr(key, value)
        if reason in INFEASIBLE_REASONS:
            # The samplers ignore failed trials. They would propose similar infeasible configurations again and again.
            trial.set_constraint(CONSTRAINT_NAME, 1.0)
        ended = self._tell(trial, state, self._objectives.result(record))
        self._write()
        self._update(
            number,
            state=STATES[ended.state],
            reason=reason,
            error=error,
            ended=to_utc(ended.datetime_complete),
        )

    def set_attribute(self, key: str, value: object) -> None:
        """Write an attribute of the study at once.

        Args:
            key: one of :class:`search.ledger.attributes.StudyKey`.
            value: anything that JSON can hold.
        """
        self._study.set_user_attr(key, value)

    def attribute(self, key: str) -> Any:
        """Return the value that the database has of an attribute of the study now, or None."""
        return self._study.user_attrs.get(key)

    def importances(self) -> dict[str, float]:
        """Return the share of each parameter in what makes trials good (PED-ANOVA); empty with too few trials."""
        return importances(self._evaluated(), self._objectives.direction)

    def importance_intervals(self) -> dict[str, Interval]:
        """:meth:`importances` with 95 % intervals. Takes about a second, unless no trial has ended since the last
        call."""
        trials = self._evaluated()
        if self._intervals is None or self._intervals[0] != trials:
            self._intervals = trials, importance_intervals(trials, self._objectives.direction)
        return self._intervals[1]

    @property
    def _writable(self) -> BufferedStorage:
        if self._storage is None:
            raise LedgerError(f"ledger: expected one that was opened to be written, received {self.name!r}")
        return self._storage

    def _evaluated(self) -> list[EvaluatedTrial]:
        return evaluated_trials(self._records.values(), self._frozen_trials())

    def _frozen_trials(self) -> list[FrozenTrial]:
        """Optuna's trials by number. They belong to the storage and must not be changed."""
        return self._study.get_trials(deepcopy=False)

    def _read(self) -> None:
        for trial in self._frozen_trials():
            self._records[trial.number] = to_record(trial, self._objectives, self._method)
        self._queue = {n for n, r in self._records.items() if r.state == "waiting"}

    def _write(self) -> None:
        if self._storage is not None:
            self._storage.flush()

    def _begin(self, trial: Trial, suggest: Suggest) -> TrialRecord:
        number, seed = trial.number, trial_seed(self._seed, trial.number)
        known = trial.user_attrs
        before = self._records.get(number) or TrialRecord(number, "waiting", self._method, {})
        fixed = is_reference(before.method)
        suggested = suggest(trial)
        # A reference trial may lie outside of the space. Its parameters are those with which it was enqueued.
        params = before.params if fixed else suggested
        method = before.method if fixed else method_of(params, self._method)
        # A resumed trial has these already; it keeps them even if another version of unfreeze would choose others.
        if TrialKey.SEED not in known:
            trial.set_user_attr(TrialKey.METHOD, method)
            trial.set_user_attr(TrialKey.SEED, seed)
            if self.head_init != "random" and not fixed:
                trial.set_user_attr(TrialKey.HEAD_INIT, self.head_init)
        if self._objectives.names and TrialKey.SERVING_COSTS not in known:
            trial.set_user_attr(TrialKey.SERVING_COSTS, dict(self.serving_costs(params)))
        # Everything so far is one transaction: a driver that is killed in the middle leaves no half-written trial.
        self._write()
        self._live[number] = trial
        self._queue.discard(number)
        serving_costs = trial.user_attrs.get(TrialKey.SERVING_COSTS, {})
        record = TrialRecord(
            number=number,
            state="running",
            method=method,
            params=dict(params),
            seed=seed,
            epochs=before.epochs,
            value=before.value,
            started=to_utc(trial.datetime_start),
            retries=before.retries,
            batch_size=before.batch_size,
            node=before.node,
            origin=known.get(TrialKey.ORIGIN),
            head_init=trial.user_attrs.get(TrialKey.HEAD_INIT, "random"),
            objectives=self._objectives.values(before.epochs, serving_costs),
        )
        self._records[number] = record
        return record

    def _add_epoch(self, number: int, epoch: EpochMetrics) -> None:
        before = self._records[number]
        after = with_epoch(before, epoch, self._objectives)
        if after is not before:
            self._live[number].set_user_attr(*newest_curve_chunk(after.epochs))
            self._records[number] = after

    def _report_epochs(self, trial: Trial, record: TrialRecord) -> None:
        """Give Optuna the objective of every epoch. Only its dashboard and its samplers read them, after the end."""
        # Optuna warns about a step that is reported twice and ignores it.
        known = self._frozen_trials()[record.number].intermediate_values
        for epoch, value in intermediate_values(record, self._objectives.metric).items():
            if epoch not in known:
                trial.report(value, epoch)

    def _tell(self, trial: Trial, state: State, result: float | list[float] | None) -> FrozenTrial:
        if state == "complete" and result is not None:
            return self._study.tell(trial, result)
        if state in ("complete", "pruned"):
            return self._study.tell(trial, state=TrialState.PRUNED)
        return self._study.tell(trial, state=TrialState.FAIL)

    def _update(self, number: int, **changes: Any) -> None:
        self._records[number] = replace(self._records[number], **changes)


def check_same_settings(ledger: Ledger, identity: Mapping[str, object]) -> None:
    """Compare settings with those that the search was begun with. The first driver of a search writes them.

    Args:
        ledger: of the search.
        identity: the settings that must stay the same for the whole life of a search, by name.

    Raises:
        LedgerError: they differ; the message lists each difference.
    """
    known = ledger.attribute(StudyKey.IDENTITY)
    asked = json.loads(json.dumps(identity))  # as the ledger returns it: JSON has no tuples
    if known is None:
        ledger.set_attribute(StudyKey.IDENTITY, asked)
        return
    different = [k for k in sorted({*known, *asked}) if known.get(k) != asked.get(k)]
    if different:
        lines = "\n".join(
            f"  {k}: expected {_format(known.get(k))}, received {_format(asked.get(k))}" for k in different
        )
        raise LedgerError(
            f"name: the search {ledger.name!r} was begun with other settings:\n{lines}\n"
            "Repeat them to continue it, or choose another --name."
        )


def _format(value: object) -> str:
    return "none" if value is None else repr(value)
