"""Runs a ledger's trials under Ray Tune until there are as many as asked for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune

from search.config.search_config import SearchConfig
from search.execution import tune_patches as tune_memory_errors
from search.execution.checkpoint_retention import CheckpointRetention, checkpoint_folder
from search.execution.engines.session import Session
from search.execution.resuming_scheduler import is_dominated
from search.execution.schedulers import make_scheduler
from search.execution.searcher import LedgerSearcher
from search.execution.stop_conditions import IdenticalFailures, Patience
from search.execution.stop_request import StopRequest
from search.execution.trial_actor import TrialActor
from search.execution.trial_recovery import RetryPolicy, TrialRecovery
from search.execution.tune_callbacks import NodeLossCallback, TrialHangCallback
from search.ledger.ledger import Ledger, Suggest
from search.records.record import Parameters, TrialRecord
from trainables.epoch_metrics import EpochMetrics


class _NoProgressReport(tune.ProgressReporter):  # type: ignore[misc]
    """Ray Tune's own clears the cell's output in a notebook, however quiet it is told to be."""

    def setup(self, *where: Any, **what: Any) -> None:
        """Nothing."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        """Never."""
        return False

    def report(self, trials: list[Any], done: bool, *sys_info: str) -> None:
        """Nothing."""


class _StopWhen(tune.Stopper):  # type: ignore[misc]
    """Ends Ray Tune's loop when ``told``. Ray Tune asks after each event, and ten times a second without."""

    def __init__(self, told: Callable[[], bool]) -> None:
        self._told = told

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._told()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles it for a restore that is never made


@dataclass(frozen=True)
class TrialRunner:
    """What one run of a ledger's trials needs besides the ledger.

    ``place`` has the paths of backbone, task and logs for a trial with given parameters;
    ``checkpoints`` has one folder a trial; ``kept`` says which of them stay.
    """

    config: SearchConfig
    session: Session
    ledger: Ledger
    suggest: Suggest
    place: Callable[[Parameters], Mapping[str, str]]
    checkpoints: Path
    kept: CheckpointRetention
    limit: int
    halt: StopRequest
    changed: Callable[[], None]
    trainable: type[tune.Trainable] = TrialActor
    alike: IdenticalFailures = field(default_factory=IdenticalFailures)
    patience: Patience = field(default_factory=Patience)

    def run(self) -> str | None:
        """Run until ``limit`` trials are in the ledger; returns why it ended earlier, if it did."""
        self.kept.look(self.checkpoints, self.ledger.trials, self.config.direction, self.config.keep_best)
        self.patience.objectives = self.config.objective or ()
        self.patience.look(self.ledger.trials, self.config.direction)
        stopped = self._exhausted()
        if not self.ledger.interrupted() and (self.ledger.started() >= self.limit or stopped):
            return stopped
        config, told = self.config, self.halt.told
        retries = RetryPolicy(self.ledger, config.max_retries, config.batch_size, told)
        whereabouts = NodeLossCallback()
        searcher = LedgerSearcher(
            self.ledger,
            self.suggest,
            self._trial,
            TrialRecovery(retries, config.trial_timeout, told),
            limit=self.limit,
            room=lambda: self.config.max_concurrent or self.session.capacity,
            epochs=self.config.epochs,
            go_on=lambda: self._exhausted() is None,
            changed=self.changed,
            heard=self._heard,
            finished=self._ended,
            astray=whereabouts.astray,
        )
        resources = {"cpu": self.config.cpus_per_trial, "gpu": self.config.gpus_per_trial}
        scratch = Path(tempfile.mkdtemp(prefix="unfreeze-tune-"))
        try:
            tuner = tune.Tuner(
                tune.with_resources(self.trainable, resources),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=make_scheduler(
                        config.scheduler,
                        config.metric,
                        config.direction,
                        config.epochs,
                        self._beaten if config.objective else None,
                    ),
                    num_samples=-1,
                    reuse_actors=self.session.reuse.processes,
                ),
                run_config=tune.RunConfig(
                    name="run",
                    storage_path=str(scratch),
                    stop=_StopWhen(
                        lambda: bool(searcher.trouble or self.halt.reason or self.session.watch.lost)
                    ),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=0),  # a trial that comes back is a new one
                    callbacks=[whereabouts, TrialHangCallback(config.trial_timeout, searcher.lost)],
                    progress_reporter=_NoProgressReport(),
                    verbose=0,
                ),
            )
            with tune_memory_errors.oom_kills_as_crashes():
                tuner.fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        self.session.refuse_lost()
        if searcher.trouble is not None:
            raise searcher.trouble
        if self.halt.reason == "time_budget":
            for number in list(self.ledger.running()):
                self.ledger.finish(number, "pruned", reason="time_budget")
                self._ended(number)
            self.changed()
        return self.halt.reason or self._exhausted()

    def _trial(self, record: TrialRecord) -> dict[str, Any]:
        config = self.config
        return {
            "number": record.number,
            "session": self.session.describe(),
            "timeout": config.trial_timeout,
            "trial": {
                "method": record.method,
                "params": dict(record.params),
                "epochs": config.epochs,
                "batch_size": record.batch_size or config.batch_size,
                "seed": record.seed,
                "metric": config.metric,
                "batch_norm": config.batch_norm,
            },
            "known": len(record.epochs),
            "place": {
                **self.place(record.params),
                "checkpoints": str(checkpoint_folder(self.checkpoints, record.number)),
            },
        }

    def _beaten(self, number: int, newest: EpochMetrics) -> bool:
        """Whether a trial is worse than some other in all of several objectives, as far as both have come."""
        trials = self.ledger.trials
        return is_dominated(trials, self.ledger.trial(number), newest, self.config.objectives)

    def _heard(self, number: int, result: Mapping[str, Any]) -> None:
        """A trial has run an epoch, and has written its checkpoint or could not."""
        folder = checkpoint_folder(self.checkpoints, number)
        if "damaged" in result:
            self.kept.damaged(str(result["damaged"]), int(result["epoch"]))
        if "unsaved" in result:
            self.kept.not_written(folder, str(result["unsaved"]))
        self.kept.written(folder)

    def _ended(self, number: int) -> None:
        """Nobody resumes a trial that the ledger says has ended; its checkpoint stays only if it is a good one."""
        folder, trial = checkpoint_folder(self.checkpoints, number), self.ledger.trial(number)
        self.alike.ended(trial)
        self.patience.ended(trial, self.config.direction)
        self.kept.ended(folder, trial, self.config.direction, self.config.keep_best)

    def _exhausted(self) -> str | None:
        """Whether to start no more trials, and why."""
        if self.halt.reason:
            return self.halt.reason
        if self.alike.error is not None:
            return "failing_alike"
        converged = self.config.patience is not None and self.patience.since >= self.config.patience
        return "converged" if converged else None
