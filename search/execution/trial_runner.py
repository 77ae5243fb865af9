"""Runs the trials of a ledger under Ray Tune until there are as many as requested."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from search.config.search_config import SearchConfig
from search.execution.checkpoint_retention import CheckpointRetention, checkpoint_folder
from search.execution.engines.messages import EpochResult, TrialRequest, WorkbenchPaths
from search.execution.engines.session import Session
from search.execution.resuming_scheduler import is_dominated
from search.execution.schedulers import make_scheduler
from search.execution.searcher import LedgerSearcher, SearchObserver
from search.execution.stop_conditions import IdenticalFailures, Patience
from search.execution.stop_request import StopRequest
from search.execution.trial_actor import TrialActor, TrialAssignment
from search.execution.trial_recovery import RetryPolicy, TrialRecovery
from search.execution.tune_callbacks import NodeLossCallback, TrialHangCallback
from search.execution.tune_patches import oom_kills_as_crashes, require_trial_state
from search.ledger.ledger import Ledger, Suggest
from search.records.epoch_plan import EpochPlan
from search.records.record import Parameters, TrialRecord
from trainables.epoch_metrics import EpochMetrics
from trainables.training.trial_config import TrialConfig

if TYPE_CHECKING:
    import optuna


class _NoProgressReport(tune.ProgressReporter):  # type: ignore[misc]
    """Replaces Tune's reporter, which clears the output of a notebook's cell even with ``verbose=0``."""

    def setup(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        """Return False: there is never anything to report."""
        return False

    def report(self, trials: list[Any], done: bool, *sys_info: str) -> None:
        """Do nothing."""


class _StopWhen(tune.Stopper):  # type: ignore[misc]
    """Ends Tune's loop when a condition holds. Tune asks after each event, and at least ten times a second."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        self._condition = condition

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._condition()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it for a restore that is never made


@dataclass(frozen=True)
class TrialRunner(SearchObserver):
    """Runs the trials of one ledger. As an observer it is called by the searcher, in the driver's thread.

    Attributes:
        config: of the search.
        epoch_plan: how many epochs each trial has.
        session: whose engines run the trials.
        ledger: that is filled.
        sample: chooses the parameters of a new trial.
        paths: returns what a trial with some parameters trains on.
        logs: folder of the engines' logs.
        checkpoints: folder with one folder of checkpoints for each trial.
        retention: decides which checkpoints stay.
        max_trials: how many trials the ledger shall contain in the end.
        stop_request: ends the run early.
        on_change: called after each change of the ledger.
        trainable: the class that Tune runs.
    """

    config: SearchConfig
    epoch_plan: EpochPlan
    session: Session
    ledger: Ledger
    sample: Suggest
    paths: Callable[[Parameters], WorkbenchPaths]
    logs: Path
    checkpoints: Path
    retention: CheckpointRetention
    max_trials: int
    stop_request: StopRequest
    on_change: Callable[[], None]
    trainable: type[tune.Trainable] = TrialActor
    _identical_failures: IdenticalFailures = field(default_factory=IdenticalFailures)
    _patience: Patience = field(default_factory=Patience)
    _node_loss: NodeLossCallback = field(default_factory=NodeLossCallback)

    def run(self) -> str | None:
        """Run until the ledger has ``max_trials`` trials. Return why the run ended earlier, if it did.

        Raises:
            LedgerError: the ledger could not be written.
            ClusterError: the cluster was lost.
        """
        config, trials = self.config, self.ledger.trials
        self.retention.scan(self.checkpoints, trials, config.direction, config.keep_best)
        self._patience.objectives = config.objective or ()
        # A resumed search has to stop where an uninterrupted one would have, so trials of earlier runs count
        # too.
        self._patience.recount(trials, config.direction)
        stopped = self._stop_reason()
        # An interrupted trial counts as started, so it is resumed even where no new trial may start.
        if not self.ledger.interrupted() and (self.ledger.started() >= self.max_trials or stopped):
            return stopped
        searcher = self._searcher()
        self._run_tune(searcher)
        # Tune's loop ends without an error if the cluster or the ledger is lost (_must_stop), so the cause is
        # raised here.
        self.session.require_cluster()
        if searcher.ledger_error is not None:
            raise searcher.ledger_error
        if self.stop_request.reason == "time_budget":
            # These trials will not be resumed: their time is over. After a signal, in contrast, trials stay "running"
            # in the ledger, and the next run of the command resumes them.
            for number in list(self.ledger.running()):
                self.ledger.finish(number, "pruned", reason="time_budget")
                self.trial_ended(number)
            self.on_change()
        return self.stop_request.reason or self._stop_reason()

    def _searcher(self) -> LedgerSearcher:
        config, notify = self.config, self.stop_request.notify
        retries = RetryPolicy(self.ledger, config.max_retries, config.batch_size, notify)
        recovery = TrialRecovery(retries, config.trial_timeout, notify)
        return LedgerSearcher(self.ledger, self, recovery, max_trials=self.max_trials)

    def _run_tune(self, searcher: LedgerSearcher) -> None:
        config = self.config
        scheduler = make_scheduler(
            config.scheduler,
            config.metric,
            config.direction,
            self._is_dominated if config.objective else None,
        )
        scheduler.replay(self.ledger.trials, self.epoch_plan)
        resources = {"cpu": config.cpus_per_trial, "gpu": config.gpus_per_trial}
        # Tune insists on a folder for its own state, of which nothing is needed later.
        scratch = Path(tempfile.mkdtemp(prefix="unfreeze-tune-"))
        try:
            tuner = tune.Tuner(
                tune.with_resources(self.trainable, resources),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=scheduler,
                    num_samples=-1,  # the searcher knows when there are enough trials
                    reuse_actors=self.session.spec.reuse.processes,
                ),
                run_config=tune.RunConfig(
                    name="run",
                    storage_path=str(scratch),
                    stop=_StopWhen(lambda: self._must_stop(searcher)),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    # Tune never retries: the searcher hands a trial that is retried to Tune as a new one.
                    failure_config=tune.FailureConfig(max_failures=0),
                    callbacks=[
                        self._node_loss,
                        TrialHangCallback(config.trial_timeout, searcher.process_died),
                    ],
                    progress_reporter=_NoProgressReport(),
                    verbose=0,
                ),
            )
            require_trial_state()
            with oom_kills_as_crashes():
                tuner.fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _must_stop(self, searcher: LedgerSearcher) -> bool:
        return bool(searcher.ledger_error or self.stop_request.reason or self.session.watchdog.lost)

    def suggest(self, trial: optuna.Trial) -> Parameters:
        """Choose the parameters of a new trial."""
        return self.sample(trial)

    def assign(self, record: TrialRecord) -> TrialAssignment:
        """Return what a trial actor needs to run a trial."""
        config = self.config
        request = TrialRequest(
            # Search and baseline run in one session, each with a ledger of its own: their trials share numbers, but
            # never a method.
            key=f"{record.method}-{record.number}",
            config=TrialConfig(
                method=record.method,
                params=dict(record.params),
                epochs=self.epoch_plan.of(record.method),
                batch_size=record.batch_size or config.batch_size,
                seed=record.seed,
                metric=config.metric,
                batch_norm=config.batch_norm,
                head_init=record.head_init,
            ),
            paths=self.paths(record.params),
            checkpoints=checkpoint_folder(self.checkpoints, record.number),
            logs=self.logs,
            known_epochs=len(record.epochs),
        )
        return TrialAssignment(record.number, self.session.spec, request, config.trial_timeout)

    def max_running(self) -> int:
        """Return how many trials may run at this moment, which changes as nodes join and leave."""
        return self.config.max_concurrent or self.session.capacity

    def may_start(self) -> bool:
        """Return whether a new trial may start."""
        return self._stop_reason() is None

    def node_lost(self, trial_id: str) -> bool:
        """Return whether a trial was stopped by the loss of its node."""
        return self._node_loss.node_lost(trial_id)

    def ledger_changed(self) -> None:
        """Pass the change on."""
        self.on_change()

    def epoch_reported(self, number: int, result: EpochResult | None) -> None:
        """Account for the trial's checkpoint, which the engine has written, or could not write."""
        folder = checkpoint_folder(self.checkpoints, number)
        if result is not None and result.damaged is not None:
            self.retention.checkpoint_damaged(result.damaged, result.epoch)
        if result is not None and result.unsaved is not None:
            self.retention.checkpoint_not_written(folder, result.unsaved)
        self.retention.checkpoint_written(folder)

    def trial_ended(self, number: int) -> None:
        """Count the trial for the stop conditions, and keep its checkpoint only if it is among the best.

        No trial that has ended is resumed, so the checkpoint is not needed for that.
        """
        folder, trial = checkpoint_folder(self.checkpoints, number), self.ledger.trial(number)
        self._identical_failures.trial_ended(trial)
        self._patience.trial_ended(trial, self.config.direction)
        self.retention.trial_ended(folder, trial, self.config.direction, self.config.keep_best)

    def _is_dominated(self, number: int, newest: EpochMetrics) -> bool:
        """Return whether another trial is better in all of several objectives, as far as both have trained."""
        trials = self.ledger.trials
        own = self.ledger.trial(number)
        return is_dominated(trials, own, newest, self.config.objectives, self.epoch_plan)

    def _stop_reason(self) -> str | None:
        """Return why no more trials start; None if they do."""
        if self.stop_request.reason:
            return self.stop_request.reason
        if self._identical_failures.error is not None:
            return "failing_alike"
        patience = self.config.patience
        return "converged" if patience is not None and self._patience.since >= patience else None
