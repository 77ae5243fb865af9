"""Wires one search: data, ledger, Ray Tune, tracking, winner, report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from search.ahead import load_ahead
from search.alike import ENOUGH, last_line
from search.archive import archive
from search.baselines import BASELINES, equal_steps
from search.choices import ALL_METHODS
from search.config import SearchConfig
from search.delivery import Delivery
from search.doctor.quick import QuickLook
from search.driver_mark import DriverMark
from search.early_checks import check_inputs
from search.execution import Halt
from search.experiment_names import experiment_name
from search.front_tags import front_tags
from search.kept_checkpoints import KeptCheckpoints, default_budget
from search.lease import Lease
from search.ledger import Ledger, sqlite_url
from search.ledger_file import LedgerCopy, check
from search.ledger_format import explaining
from search.logged_view import LoggedView
from search.naming import search_name
from search.node_use import watched
from search.notebook_html import result_html
from search.phase import Phase
from search.phrases import plural
from search.preparation import Prepared, prepare_all
from search.prior import prior_worth
from search.progress import View, default_view
from search.record import Outcome, SearchRecord, TrialRecord
from search.results import outcome_from_json, outcome_to_json, trials_table, write_results
from search.seams import reached
from search.serving_prices import price_list
from search.session import Session, connect
from search.stores import default_tracking_uri
from search.warm_prior import warm_start_worth
from search.winner import Rival, measure, points, retrain
from search.workspace import Workspace
from trainables.errors import SearchError, TakenOver

if TYPE_CHECKING:
    from search.report.drawing import Drawing
    from search.tracking import Mirror


class Interrupted(KeyboardInterrupt):
    """A person ended the search; the same command goes on with it."""


@dataclass(frozen=True, repr=False)
class SearchResult:
    """A finished search."""

    record: SearchRecord
    model_uri: str | None
    report_path: Path

    def __repr__(self) -> str:
        """Short, for an interactive session: the record holds every epoch, and images."""
        best = self.record.best
        found = "no result" if best is None else f"trial {best.number}, {self.record.metric} {best.value}"
        model = f", {self.model_uri}" if self.model_uri else ""
        return f"<SearchResult {self.record.name}: {found}{model}>"

    @property
    def best(self) -> TrialRecord:
        """The winner."""
        best = self.record.best
        if best is None:
            raise SearchError("no trial of this search has a result")
        return best

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """Of several objectives, the trials that no other dominates, the best in the first objective first."""
        return self.record.front

    @property
    def trials(self) -> pa.Table:
        """All trials, one row each."""
        return trials_table(self.record.trials, self.record.objectives)

    @property
    def tracking_uri(self) -> str:
        """MLflow's store with the runs and the model, for ``mlflow.set_tracking_uri`` and :mod:`search.registry`."""
        return self.record.tracking_uri

    def figure(self, key: str) -> Drawing:
        """A figure of the report (``history``, ``curves``, ``parallel``, ``landscape``, …) for a notebook.

        Raises:
            UsageError: there is no such figure; the message lists those that there are.
        """
        from search.report.drawing import drawing  # altair and vl-convert take a second to import

        return drawing(self.record, key)

    def _repr_html_(self) -> str:
        return result_html(self.record)


def run_search(
    config: SearchConfig | None = None, view: View | None = None, verbose: bool = False
) -> SearchResult:
    """Run a search, or go on with one that was interrupted, until it is whole.

    Without a ``view`` a notebook shows a live one, which is closed at the end; elsewhere nothing is shown.

    Raises:
        UsageError: a wrong option.
        SearchError: the search can't start or go on.
        Interrupted: SIGINT or SIGTERM; everything is kept.
    """
    if view is not None:
        return _run(config or SearchConfig(), view, verbose)
    shown = default_view()
    try:
        return _run(config or SearchConfig(), shown, verbose)
    finally:
        shown.close()


def _run(config: SearchConfig, view: View, verbose: bool) -> SearchResult:
    workspace = Workspace(Path(config.storage).absolute(), search_name(config))
    check_inputs(config, workspace)
    workspace.create()
    view = LoggedView(view, workspace.logs)
    halt = Halt(told=view.event)
    if config.fresh and (kept := archive(workspace, config.ledger)):
        view.event(f"fresh: the earlier search {workspace.name!r} is now in {kept}")
        workspace.create()
    quick = QuickLook(config, workspace.storage, view)
    with (
        workspace.explaining(),
        workspace.locked(),
        halt.listening(),
        connect(config, verbose, view) as session,
        watched(view.nodes) if config.address else nullcontext(),
    ):
        load_ahead()
        quick.at_places()
        quick.at_nodes()
        prepared = prepare_all(config, workspace, session, view)
        quick.refuse()
        reached("prepared")
        checkpoints = _kept_checkpoints(config, workspace, view)
        return _Run(config, view, workspace, session, halt, prepared, checkpoints).whole()


@dataclass
class _Run:
    """One run of the command: does whatever of the search is not done yet."""

    config: SearchConfig
    view: View
    workspace: Workspace
    session: Session
    halt: Halt
    prepared: Prepared
    kept: KeptCheckpoints
    lease: Lease | None = None

    def whole(self) -> SearchResult:
        """Trials, baselines, winner, model, report."""
        with self._driving():
            return self._driven()

    def _driven(self) -> SearchResult:
        task = self.prepared.task_summary.name
        search = self._phase(self.config, self.workspace.name, self.config.trials, self.workspace.ledger)
        search.outcome, search.alternatives = _known_outcomes(search)
        search.halt = self.halt.again(self.config.time_budget)
        with self._delivery(search, experiment_name(task)) as delivery:
            if self.config.objective:
                search.ledger.costs = price_list(search, self.view.event).of
            self._trials(search)
            self._confirm(search, self._baselines(search, task))
            self.session.leave()
            search.keep_time()
            record = self._leave_files(search)
            delivery.publish(record)
            if self._register(search, delivery):
                search.keep_time()
                record = self._leave_files(search)
            delivery.finish(record, "FINISHED", self._artifacts(record))
            reached("finished")
        self.view.update(record)
        return SearchResult(record, _model_uri(search.outcome), self.workspace.report)

    def _phase(self, config: SearchConfig, name: str, limit: int, ledger_file: Path) -> Phase:
        ledger_file.parent.mkdir(parents=True, exist_ok=True)
        if config.ledger is None:
            check(ledger_file)
        ledger = Ledger(
            config.ledger or sqlite_url(ledger_file),
            name,
            direction=config.direction,
            metric=config.metric,
            method=config.method,
            sampler=config.sampler,
            seed=config.seed,
            objectives=config.objective or (),
            fence=self.lease.hold if self.lease else None,
        )
        return Phase(
            config=config,
            name=name,
            ledger=ledger,
            prepared=self.prepared,
            session=self.session,
            halt=self.halt,
            checkpoints=ledger_file.parent / "checkpoints",
            logs=self.workspace.logs,
            kept=self.kept,
            storage=self.workspace.storage,
            tracking_uri=self._tracking_uri,
            told=self.view.update,
            limit=limit,
            copy=LedgerCopy(None if config.ledger else ledger_file, self.view.event),
        )

    @contextmanager
    def _driving(self) -> Iterator[None]:
        """Keep other machines out where the ledger is not in the storage, which has a lock of its own.

        Before the ledger is read: what a driver that is taken over from still wrote must be in it.
        """
        if self.config.ledger is None:
            yield
            return
        name = self.workspace.name
        with Lease(DriverMark(self.config.ledger, name, *self.config.directions), name).held() as self.lease:
            self.halt.lost = self.lease.lost
            yield

    @property
    def _tracking_uri(self) -> str:
        return self.config.tracking_uri or default_tracking_uri(self.workspace.storage)

    @contextmanager
    def _delivery(self, phase: Phase, experiment: str) -> Iterator[Delivery]:
        """Follow a phase in MLflow, in the background; leave nothing running there, however it ends."""

        def mirror() -> Mirror:
            from search.tracking import Mirror

            return Mirror(self._tracking_uri, experiment=experiment, storage=self.workspace.storage)

        delivery = Delivery(mirror, self.view.event, self.lease.check if self.lease else None)

        def told(record: SearchRecord) -> None:
            delivery.publish(record)
            self.view.update(record)

        phase.told = told
        phase.news(now=True)
        try:
            yield delivery
        except TakenOver:
            delivery.drop()  # the runs are another process's now
            raise
        except BaseException as error:
            delivery.abandon("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise

    def _trials(self, phase: Phase) -> None:
        if phase.config.transfers:  # of random weights the scores say nothing
            phase.believe(self.view.event)
        phase.run()
        self._refuse_halted()
        record = phase.record()
        if worth := prior_worth(record):
            self.view.event(f"prior: {worth}")
        if said := warm_start_worth(record):
            self.view.event(f"warm start: {said}")
        if phase.stopped == "failing_alike":
            raise SearchError(_failing_alike(record))
        if record.best is None:
            raise SearchError(_nothing_worked(record))

    def _refuse_halted(self) -> None:
        """Go no further where a person has said so, or another process has taken over."""
        if self.lease is not None:
            self.lease.check()
        if self.halt.signalled.is_set():
            raise Interrupted

    def _baselines(self, search: Phase, task: str) -> list[Phase]:
        """As many trials of each baseline, under the same budget: searches of their own in ledgers of their own."""
        limit = self.config.planned_baseline_trials
        if not limit:
            return []
        if search.stopped and self.config.baseline_trials is None:
            limit = max(1, min(limit, search.ledger.started()))
        return [self._baseline(method, limit, task) for method in self.config.baselines]

    def _baseline(self, method: str, limit: int, task: str) -> Phase:
        config = self.config.replace(
            method=method,
            enqueue=None,
            warm_start=None,
            remember=None,
            trials=limit,
            keep_best=0,
            objective=None,
            epochs=self._baseline_epochs(method),
        )
        name = self.workspace.baseline_name(method)
        phase = self._phase(config, name, limit, self.workspace.baseline_ledger(method))
        phase.halt = self.halt.again(self.config.time_budget)
        self.view.event(f"baseline: {limit} trials from {BASELINES[method]}, to see what transfer is worth")
        with self._delivery(phase, experiment_name(task, baseline=method)) as delivery:
            self._trials(phase)
            delivery.finish(phase.record(whole=True))
        return phase

    def _baseline_epochs(self, method: str) -> int:
        """As many as make about as many steps as a trial has that sees the source too."""
        source = self.prepared.source
        if source is None or method == "source" or self.config.method == ALL_METHODS:
            return self.config.epochs
        counts = self.prepared.task.counts["train"], source.counts["train"]
        return round(self.config.epochs * equal_steps(*counts))

    def _confirm(self, search: Phase, baselines: Sequence[Phase]) -> None:
        """Re-train the winner, or points of the front, and measure them, unless that is done."""
        chosen = points(search.record(), self.config.confirm_points)
        known = [outcome.trial for outcome in (search.outcome, *search.alternatives) if outcome]
        if [trial.number for trial in chosen] == known:
            return
        rivals = [(b, trial) for b in baselines if (trial := b.record().best) is not None]
        trials = [*chosen, *(trial for _, trial in rivals)]
        self.view.event(_confirming(chosen, self.config.confirm_seeds))
        began = time.monotonic()
        runs = retrain(
            trials,
            [*(self.config.epochs for _ in chosen), *(b.config.epochs for b, _ in rivals)],
            self.config,
            self.session,
            lambda params: self.prepared.of(params).place,
            self.workspace.winner,
            self.view,
            self.halt,
        )
        self._refuse_halted()
        outcomes = measure(
            list(zip(chosen, runs, strict=False)),
            [Rival(trial, run, b.limit) for (b, trial), run in zip(rivals, runs[len(chosen) :], strict=True)],
            lambda params: self.prepared.of(params).task,
            self.session,
        )
        reached("measured")
        self._keep(search, [replace(outcome, seconds=time.monotonic() - began) for outcome in outcomes])

    def _keep(self, search: Phase, outcomes: Sequence[Outcome]) -> None:
        """Write outcomes into the ledger, the winner's last: without it the others count for nothing."""
        search.outcome, search.alternatives = outcomes[0], tuple(outcomes[1:])
        if self.config.objective:
            search.ledger.note("alternatives", [outcome_to_json(o) for o in search.alternatives])
        search.ledger.note("outcome", outcome_to_json(outcomes[0]))

    def _register(self, search: Phase, delivery: Delivery) -> bool:
        """Make the winner, and other points of the front that were confirmed, model versions, unless they are.

        Returns:
            Whether there is a new version.
        """
        if not self.config.register_model or search.outcome is None:
            return False
        known = search.outcome
        outcomes = [search.outcome, *search.alternatives]
        for place in range(
            len(outcomes) - 1, -1, -1
        ):  # the winner last: it is the newest version, and the challenger
            if not outcomes[place].model_version:
                outcomes[place] = self._registered(search, outcomes, place, delivery)
                self._keep(search, outcomes)
        reached("registered")
        return search.outcome is not known

    def _registered(
        self, search: Phase, outcomes: Sequence[Outcome], place: int, delivery: Delivery
    ) -> Outcome:
        from search.registry import register

        outcome = outcomes[place]
        of = f", trial {outcome.trial}" if len(outcomes) > 1 else ""
        self.view.event(f"model: registering {self._model_name}{of}")
        record = replace(search.record(), outcome=outcome)
        model = self.workspace.winner / outcome.model_file
        answers = self.workspace.winner / outcome.answers_file if outcome.answers_file else None
        examples = np.array(self.prepared.of(outcome.params).task.split("validation").images[:4])
        # Who uploads a model gets much time; of a server that is not there one hears sooner.
        delivery.ask(lambda mirror: mirror.run_id(outcome.trial))
        version = delivery.ask(
            lambda mirror: register(
                record,
                model,
                run_id=mirror.run_id(outcome.trial),
                examples=examples,
                model_name=self._model_name,
                tracking_uri=self._tracking_uri,
                answers=answers,
                point=front_tags(record, [o.trial for o in outcomes]),
                challenger=place == 0,
            ),
            timeout=300,
        )
        return replace(outcome, model_name=self._model_name, model_version=str(version.version))

    @property
    def _model_name(self) -> str:
        return self.config.model_name or f"unfreeze-{self.prepared.task_summary.name}"

    def _leave_files(self, search: Phase) -> SearchRecord:
        from search.report import write_report

        record = search.record(whole=True)
        write_results(record, self.workspace.directory)
        write_report(record, self.workspace.report)
        return record

    def _artifacts(self, record: SearchRecord) -> tuple[Path, ...]:
        """What is shown with the search's run: its tables, the report, and the plots by themselves."""
        from search.report.extracts import extracts

        folder = self.workspace.directory
        return (
            folder / "trials.parquet",
            folder / "best.json",
            self.workspace.report,
            *extracts(record, folder, self.view.event),
        )


def _kept_checkpoints(config: SearchConfig, workspace: Workspace, view: View) -> KeptCheckpoints:
    """One budget for the search and its baselines."""
    budget = config.checkpoint_budget
    if budget is None:
        folders = ("", *map(workspace.baseline_folder, BASELINES))
        budget = default_budget(*map(workspace.checkpoints, folders))
    return KeptCheckpoints(budget, view.event)


def _known_outcomes(search: Phase) -> tuple[Outcome | None, tuple[Outcome, ...]]:
    """The winner's, and those of other points of the front."""
    kept, others = search.ledger.noted("outcome"), search.ledger.noted("alternatives") or []
    with explaining(search.name):
        if not kept:
            return None, ()
        return outcome_from_json(kept), tuple(map(outcome_from_json, others))


def _confirming(chosen: Sequence[TrialRecord], seeds: int) -> str:
    if len(chosen) == 1:
        return f"winner: trial {chosen[0].number}; training it again with {plural(seeds, 'new seed')}"
    numbers = ", ".join(str(trial.number) for trial in chosen)
    return f"front: trials {numbers}; training each again with {plural(seeds, 'new seed')}"


def _model_uri(outcome: Outcome | None) -> str | None:
    if outcome is None or not outcome.model_version:
        return None
    return f"models:/{outcome.model_name}/{outcome.model_version}"


def _failing_alike(record: SearchRecord) -> str:
    """The error that ended every trial of this run, once."""
    last = [t for t in record.trials if last_line(t)][-1]
    return (
        f"trials: the first {ENOUGH} all ended with the same error, so no more were started:\n  {last_line(last)}\n"
        f"`unfreeze status --verbose {record.name}` shows where it was raised (storage: {record.storage}). Once the "
        "cause is gone, the same command goes on with the trials that are left."
    )


def _nothing_worked(record: SearchRecord) -> str:
    """Why there is no best trial, in the words of the first failure."""
    failed = [t for t in record.trials if t.error]
    count = len(record.trials)
    if not failed and record.stopped == "time_budget":
        return "time_budget: expected enough for one epoch of one trial; it ended before. Give more and run it again"
    if not failed:
        return f"trials: expected at least one with a result, received {count} without any"
    return (
        f"trials: none of {count} has a result; trial {failed[0].number} ended with: {last_line(failed[0])}"
    )
