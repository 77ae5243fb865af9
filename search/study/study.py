"""Runs one search from start to end: data, trials, baselines, confirmation, registration, report.

Every step leaves its result in the storage before the next one begins, so that the same command resumes a search that
was interrupted anywhere:

1. ``check_inputs`` and ``prepare_all`` check and prepare backbones and data.
2. ``PhaseRunner.run_trials`` fills the ledger (:mod:`search.study.phase`), ``run_baselines`` those of the baselines.
3. ``FinalTraining`` trains the best trials with new seeds, chooses the winner among them, trains it on all labels, and
   measures it on the test split, once.
4. Results, report and registered model are written (:mod:`search.study.model_versions`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from search.config.search_config import SearchConfig
from search.doctor.startup_checks import StartupChecks
from search.execution.cluster.node_usage import polling_node_usage
from search.execution.engines.session import connect
from search.execution.stop_request import StopRequest
from search.fault_injection import failpoint
from search.ledger.archive import archive
from search.ledger.workspace import Workspace
from search.records.record import SearchRecord
from search.records.results import write_results
from search.study.baselines import run_baselines
from search.study.early_checks import check_inputs
from search.study.final_training import FinalTraining
from search.study.model_versions import model_state, register_version
from search.study.phase import Phase
from search.study.phase_runner import PhaseRunner, checkpoint_retention
from search.study.preload import Preloader
from search.study.preparation import prepare_all, search_epoch_plan
from search.study.resolved_inputs import DataSources, search_name
from search.study.search_result import SearchResult, model_uri
from search.study.serving_costs import make_serving_costs
from search.study.winner.selection import plan_selection
from search.tracking.delivery import Delivery
from search.tracking.experiments import experiment_name
from search.views.logged import LoggedView
from search.views.view import View, default_view


def run_search(
    config: SearchConfig | None = None, view: View | None = None, verbose: bool = False
) -> SearchResult:
    """Run a search, or resume one that was interrupted, until it is complete.

    Args:
        config: the options; None for the built-in search on digits.
        view: shows the progress. By default a notebook shows a live view, and nothing is shown elsewhere.
        verbose: whether Ray and the engines print their logs.

    Raises:
        UsageError: an option is not valid.
        SearchError: the search can't start or continue.
        Interrupted: SIGINT or SIGTERM; the storage keeps everything that was done.

    >>> result = run_search(SearchConfig(data="photos/", backbone="MobileNetV2"))  # doctest: +SKIP
    >>> result.model_uri  # doctest: +SKIP
    'models:/unfreeze-photos/1'
    """
    if view is not None:
        return _run(config or SearchConfig(), view, verbose)
    view = default_view()
    try:
        return _run(config or SearchConfig(), view, verbose)
    finally:
        view.close()


def _run(config: SearchConfig, view: View, verbose: bool) -> SearchResult:
    workspace = Workspace(Path(config.storage).absolute(), search_name(config))
    sources = DataSources(workspace.data)
    check_inputs(config, workspace, sources)
    workspace.create()
    view = LoggedView(view, workspace.logs)
    stop_request = StopRequest(notify=view.event)
    if config.fresh and (archived := archive(workspace, config.ledger)):
        view.event(f"fresh: the earlier search {workspace.name!r} is now in {archived}")
        workspace.create()
    startup_checks = StartupChecks(config, workspace.storage, view.event)
    with (
        workspace.explain_unwritable(),
        workspace.locked(),
        stop_request.handling_signals(),
        connect(config, verbose, view.event, view.close) as session,
        polling_node_usage(view.nodes) if config.address else nullcontext(),
        # Innermost, so that its threads have ended before Ray is shut down.
        Preloader() as preloader,
    ):
        preloader.load_reporting()
        startup_checks.start_local_checks()
        startup_checks.start_node_checks()
        prepared = prepare_all(config, workspace, session, view, sources)
        startup_checks.raise_if_fatal()
        failpoint("prepared")
        retention = checkpoint_retention(config, workspace, view)
        runner = PhaseRunner(config, view, workspace, session, stop_request, prepared, retention)
        with runner.holding_lease():
            return _Search(runner, preloader).run()


@dataclass
class _Search:
    """Does the steps of a search that are not done yet."""

    runner: PhaseRunner
    preloader: Preloader

    def run(self) -> SearchResult:
        """Trials, baselines, confirmation, files, registration."""
        runner, workspace = self.runner, self.runner.workspace
        config, task = runner.config, runner.prepared.task_summary.name
        plan = search_epoch_plan(config, runner.prepared)
        search = runner.open_phase(config, workspace.name, config.trials, workspace.ledger, plan)
        search.load_outcomes()
        if search.epoch_plan.automatic:
            runner.view.event(f"trials: {search.epoch_plan.phrase}")
        with runner.delivery(search, experiment_name(task)) as delivery:
            if config.objective:
                search.ledger.serving_costs = make_serving_costs(search, runner.view.event).costs_of
            runner.run_trials(search)
            self._confirm(search, run_baselines(runner, search, task))
            search.save_elapsed()
            record = self._write_files(search)
            delivery.publish(record)
            if self._register_models(search, delivery):
                # The report names the model version, and its time includes the registration.
                search.save_elapsed()
                record = self._write_files(search)
            delivery.finish(record, "FINISHED", self._run_artifacts(record))
            failpoint("finished")
        runner.view.update(record)
        state = model_state(search.outcome, runner.tracking_uri)
        return SearchResult(record, model_uri(search.outcome), workspace.report, state)

    def _confirm(self, search: Phase, baselines: Sequence[Phase]) -> None:
        """Choose the winner, or points of the front, train it for the last time, and measure it on the test split.

        Nothing is done if the ledger has the outcome already.
        """
        config, runner = self.runner.config, self.runner
        plan = plan_selection(search.record(), config)
        if plan.is_done(search.outcome, search.alternatives):
            return
        if config.register_model:
            self.preloader.load_registration()
        began = time.monotonic()
        outcomes = FinalTraining(runner, search, baselines).run(plan)
        failpoint("measured")
        search.save_outcomes([replace(outcome, seconds=time.monotonic() - began) for outcome in outcomes])

    def _register_models(self, search: Phase, delivery: Delivery) -> bool:
        """Register the winner and other confirmed points of the front, unless they are model versions already.

        Returns:
            Whether there is a new version.
        """
        runner = self.runner
        if not runner.config.register_model or search.outcome is None:
            return False
        known = search.outcome
        outcomes = [search.outcome, *search.alternatives]
        # The winner comes last, so that it is the newest version; the alias ``challenger`` points to it.
        for index in range(len(outcomes) - 1, -1, -1):
            if not outcomes[index].model_version:
                suffix = f", trial {outcomes[index].trial}" if len(outcomes) > 1 else ""
                runner.view.event(f"model: registering {self._model_name}{suffix}")
                outcomes[index] = register_version(
                    search, outcomes, index, delivery, runner.workspace.winner, self._model_name
                )
                search.save_outcomes(outcomes)  # a killed search must not register a version twice
        failpoint("registered")
        return search.outcome is not known

    @property
    def _model_name(self) -> str:
        runner = self.runner
        return runner.config.model_name or f"unfreeze-{runner.prepared.task_summary.name}"

    def _write_files(self, search: Phase) -> SearchRecord:
        """Write the tables and the report of the search into its folder."""
        from search.report.formats import write_report

        workspace = self.runner.workspace
        record = search.record(whole=True)
        write_results(record, workspace.directory)
        write_report(record, workspace.report)
        return record

    def _run_artifacts(self, record: SearchRecord) -> tuple[Path, ...]:
        """Return the files that MLflow shows with the search's run: tables, report and single plots."""
        from search.report.formats import write_run_artifacts

        workspace = self.runner.workspace
        folder = workspace.directory
        return (
            folder / "trials.parquet",
            folder / "best.json",
            workspace.report,
            *write_run_artifacts(record, folder, self.runner.view.event),
        )
