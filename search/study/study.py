"""Wires one search: data, ledger, Ray Tune, tracking, winner, report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from search.config.choices import ALL_METHODS, BASELINE_SOURCES, baseline_epoch_factor
from search.config.search_config import SearchConfig
from search.doctor.startup_checks import StartupChecks
from search.execution.checkpoint_retention import CheckpointRetention, default_budget
from search.execution.cluster.node_usage import polling_node_usage
from search.execution.engines.session import Session, connect
from search.execution.stop_request import StopRequest
from search.fault_injection import failpoint
from search.ledger.archive import archive
from search.ledger.backup import LedgerBackup, check_ledger_file
from search.ledger.driver_lease import Lease
from search.ledger.driver_lease_row import LeaseRow
from search.ledger.ledger import Ledger, sqlite_url
from search.ledger.sampling.backbone_prior import evaluate_prior
from search.ledger.sampling.warm_start_prior import warm_start_summary
from search.ledger.workspace import Workspace
from search.records.formatting import plural
from search.records.record import SearchRecord, TrialRecord
from search.records.results import write_results
from search.study.confirmation import BaselineRuns, evaluate_on_test, retrain, trials_to_confirm
from search.study.data_sources import DataSources
from search.study.early_checks import check_inputs
from search.study.model_versions import register_version
from search.study.outcomes import load_outcomes, no_result_message, same_error_message, save_outcomes
from search.study.phase import Phase
from search.study.preload import Preloader
from search.study.preparation import Prepared, prepare_all
from search.study.resolved_inputs import search_name
from search.study.search_result import SearchResult, model_uri
from search.study.serving_costs import make_serving_costs
from search.tracking.delivery import Delivery
from search.tracking.experiments import experiment_name
from search.tracking.stores import default_tracking_uri
from search.views.logged import LoggedView
from search.views.view import View, default_view
from trainables.errors import LeaseLost, SearchError

if TYPE_CHECKING:
    from search.tracking.mirror import Mirror


class Interrupted(KeyboardInterrupt):
    """A person ended the search; the same command goes on with it."""


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
    sources = DataSources(workspace.data)
    check_inputs(config, workspace, sources)
    workspace.create()
    view = LoggedView(view, workspace.logs)
    stop_request = StopRequest(notify=view.event)
    if config.fresh and (kept := archive(workspace, config.ledger)):
        view.event(f"fresh: the earlier search {workspace.name!r} is now in {kept}")
        workspace.create()
    startup_checks = StartupChecks(config, workspace.storage, view.event)
    with (
        workspace.explain_unwritable(),
        workspace.locked(),
        stop_request.handling_signals(),
        connect(config, verbose, view.event, view.close) as session,
        polling_node_usage(view.nodes) if config.address else nullcontext(),
        Preloader() as preloader,
    ):
        preloader.load_reporting()
        startup_checks.start_local_checks()
        startup_checks.start_node_checks()
        prepared = prepare_all(config, workspace, session, view, sources)
        startup_checks.raise_if_fatal()
        failpoint("prepared")
        checkpoints = _checkpoint_retention(config, workspace, view)
        return _SearchRun(
            config, view, workspace, session, stop_request, prepared, checkpoints, preloader
        ).execute()


@dataclass
class _SearchRun:
    """One run of the command: does whatever of the search is not done yet."""

    config: SearchConfig
    view: View
    workspace: Workspace
    session: Session
    stop_request: StopRequest
    prepared: Prepared
    retention: CheckpointRetention
    preloader: Preloader
    lease: Lease | None = None

    def execute(self) -> SearchResult:
        """Trials, baselines, winner, model, report."""
        with self._holding_lease():
            return self._execute()

    def _execute(self) -> SearchResult:
        task = self.prepared.task_summary.name
        search = self._phase(self.config, self.workspace.name, self.config.trials, self.workspace.ledger)
        search.outcome, search.alternatives = load_outcomes(search)
        search.stop_request = self.stop_request.with_deadline(self.config.time_budget)
        with self._delivery(search, experiment_name(task)) as delivery:
            if self.config.objective:
                search.ledger.serving_costs = make_serving_costs(search, self.view.event).costs_of
            self._run_trials(search)
            self._confirm(search, self._run_baselines(search, task))
            search.save_elapsed()
            record = self._write_files(search)
            delivery.publish(record)
            if self._register_models(search, delivery):
                search.save_elapsed()
                record = self._write_files(search)
            delivery.finish(record, "FINISHED", self._run_artifacts(record))
            failpoint("finished")
        self.view.update(record)
        return SearchResult(record, model_uri(search.outcome), self.workspace.report)

    def _phase(self, config: SearchConfig, name: str, limit: int, ledger_file: Path) -> Phase:
        ledger_file.parent.mkdir(parents=True, exist_ok=True)
        if config.ledger is None:
            check_ledger_file(ledger_file)
        ledger = Ledger(
            config.ledger or sqlite_url(ledger_file),
            name,
            direction=config.direction,
            metric=config.metric,
            method=config.method,
            sampler=config.sampler,
            seed=config.seed,
            objectives=config.objective or (),
            fence=self.lease.fence if self.lease else None,
        )
        return Phase(
            config=config,
            name=name,
            ledger=ledger,
            prepared=self.prepared,
            session=self.session,
            stop_request=self.stop_request,
            checkpoints=ledger_file.parent / "checkpoints",
            logs=self.workspace.logs,
            retention=self.retention,
            storage=self.workspace.storage,
            tracking_uri=self._tracking_uri,
            notify=self.view.update,
            limit=limit,
            backup=LedgerBackup(None if config.ledger else ledger_file, self.view.event),
        )

    @contextmanager
    def _holding_lease(self) -> Iterator[None]:
        """Keep other machines out where the ledger is not in the storage, which has a lock of its own.

        Before the ledger is read: what a driver that is taken over from still wrote must be in it.
        """
        if self.config.ledger is None:
            yield
            return
        name = self.workspace.name
        with Lease(
            LeaseRow(self.config.ledger, name, *self.config.directions), name
        ).acquired() as self.lease:
            self.stop_request.taken_over = self.lease.lost
            yield

    @property
    def _tracking_uri(self) -> str:
        return self.config.tracking_uri or default_tracking_uri(self.workspace.storage)

    @contextmanager
    def _delivery(self, phase: Phase, experiment: str) -> Iterator[Delivery]:
        """Follow a phase in MLflow, in the background; leave nothing running there, however it ends."""

        def mirror() -> Mirror:
            from search.tracking.mirror import Mirror

            return Mirror(self._tracking_uri, experiment=experiment, storage=self.workspace.storage)

        delivery = Delivery(mirror, self.view.event, self.lease.check if self.lease else None)

        def notify(record: SearchRecord) -> None:
            delivery.publish(record)
            self.view.update(record)

        phase.notify = notify
        phase.publish(now=True)
        try:
            yield delivery
        except LeaseLost:
            delivery.discard()  # the runs are another process's now
            raise
        except BaseException as error:
            delivery.abandon("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise

    def _run_trials(self, phase: Phase) -> None:
        if phase.config.transfers:  # of random weights the scores say nothing
            phase.set_prior(self.view.event)
        phase.run()
        self._raise_if_stopped()
        record = phase.record()
        if worth := evaluate_prior(record):
            self.view.event(f"prior: {worth}")
        if said := warm_start_summary(record):
            self.view.event(f"warm start: {said}")
        if phase.stopped == "failing_alike":
            raise SearchError(same_error_message(record))
        if record.best is None:
            raise SearchError(no_result_message(record))

    def _raise_if_stopped(self) -> None:
        """Go no further where a person has said so, or another process has taken over."""
        if self.lease is not None:
            self.lease.check()
        if self.stop_request.signalled.is_set():
            raise Interrupted

    def _run_baselines(self, search: Phase, task: str) -> list[Phase]:
        """As many trials of each baseline, under the same budget: searches of their own in ledgers of their own."""
        limit = self.config.planned_baseline_trials
        if not limit:
            return []
        if search.stopped and self.config.baseline_trials is None:
            limit = max(1, min(limit, search.ledger.started()))
        return [self._run_baseline(method, limit, task) for method in self.config.baselines]

    def _run_baseline(self, method: str, limit: int, task: str) -> Phase:
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
        phase.stop_request = self.stop_request.with_deadline(self.config.time_budget)
        self.view.event(
            f"baseline: {limit} trials from {BASELINE_SOURCES[method]}, to see what transfer is worth"
        )
        with self._delivery(phase, experiment_name(task, baseline=method)) as delivery:
            self._run_trials(phase)
            delivery.finish(phase.record(whole=True))
        return phase

    def _baseline_epochs(self, method: str) -> int:
        """As many as make about as many steps as a trial has that sees the source too."""
        source = self.prepared.source
        if source is None or method == "source" or self.config.method == ALL_METHODS:
            return self.config.epochs
        counts = self.prepared.task.counts["train"], source.counts["train"]
        return round(self.config.epochs * baseline_epoch_factor(*counts))

    def _confirm(self, search: Phase, baselines: Sequence[Phase]) -> None:
        """Re-train the winner, or points of the front, and measure them, unless that is done."""
        chosen = trials_to_confirm(search.record(), self.config.confirm_points)
        known = [outcome.trial for outcome in (search.outcome, *search.alternatives) if outcome]
        if [trial.number for trial in chosen] == known:
            return
        rivals = [(b, trial) for b in baselines if (trial := b.record().best) is not None]
        trials = [*chosen, *(trial for _, trial in rivals)]
        self.view.event(_confirmation_message(chosen, self.config.confirm_seeds))
        if self.config.register_model:
            self.preloader.load_registration()
        began = time.monotonic()
        runs = retrain(
            trials,
            [*(self.config.epochs for _ in chosen), *(b.config.epochs for b, _ in rivals)],
            self.config,
            self.session,
            lambda params: self.prepared.for_params(params).paths,
            self.workspace.winner,
            self.view,
            self.stop_request,
        )
        self._raise_if_stopped()
        outcomes = evaluate_on_test(
            list(zip(chosen, runs, strict=False)),
            [
                BaselineRuns(trial, run, b.limit)
                for (b, trial), run in zip(rivals, runs[len(chosen) :], strict=True)
            ],
            lambda params: self.prepared.for_params(params).task,
            self.session,
        )
        failpoint("measured")
        save_outcomes(search, [replace(outcome, seconds=time.monotonic() - began) for outcome in outcomes])

    def _register_models(self, search: Phase, delivery: Delivery) -> bool:
        """Make the winner, and other points of the front that were confirmed, model versions, unless they are.

        Returns:
            Whether there is a new version.
        """
        if not self.config.register_model or search.outcome is None:
            return False
        known = search.outcome
        outcomes = [search.outcome, *search.alternatives]
        # The winner last: it is the newest version, and the challenger.
        for place in range(len(outcomes) - 1, -1, -1):
            if not outcomes[place].model_version:
                of = f", trial {outcomes[place].trial}" if len(outcomes) > 1 else ""
                self.view.event(f"model: registering {self._model_name}{of}")
                outcomes[place] = register_version(
                    search, outcomes, place, delivery, self.workspace.winner, self._model_name
                )
                save_outcomes(search, outcomes)
        failpoint("registered")
        return search.outcome is not known

    @property
    def _model_name(self) -> str:
        return self.config.model_name or f"unfreeze-{self.prepared.task_summary.name}"

    def _write_files(self, search: Phase) -> SearchRecord:
        from search.report import write_report

        record = search.record(whole=True)
        write_results(record, self.workspace.directory)
        write_report(record, self.workspace.report)
        return record

    def _run_artifacts(self, record: SearchRecord) -> tuple[Path, ...]:
        """What is shown with the search's run: its tables, the report, and the plots by themselves."""
        from search.report.formats import write_run_artifacts

        folder = self.workspace.directory
        return (
            folder / "trials.parquet",
            folder / "best.json",
            self.workspace.report,
            *write_run_artifacts(record, folder, self.view.event),
        )


def _checkpoint_retention(config: SearchConfig, workspace: Workspace, view: View) -> CheckpointRetention:
    """One budget for the search and its baselines."""
    budget = config.checkpoint_budget
    if budget is None:
        folders = ("", *map(workspace.baseline_folder, BASELINE_SOURCES))
        budget = default_budget(*map(workspace.checkpoints, folders))
    return CheckpointRetention(budget, view.event)


def _confirmation_message(chosen: Sequence[TrialRecord], seeds: int) -> str:
    if len(chosen) == 1:
        return f"winner: trial {chosen[0].number}; training it again with {plural(seeds, 'new seed')}"
    numbers = ", ".join(str(trial.number) for trial in chosen)
    return f"front: trials {numbers}; training each again with {plural(seeds, 'new seed')}"
