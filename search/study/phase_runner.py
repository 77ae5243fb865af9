"""Opens the phases of a search, runs their trials and delivers them to MLflow.

A search consists of phases: its own trials, then those of each baseline. All phases share what is in
:class:`PhaseRunner`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from search.config.choices import BASELINE_SOURCES
from search.config.search_config import SearchConfig
from search.execution.checkpoint_retention import CheckpointRetention, default_checkpoint_budget
from search.execution.engines.session import Session
from search.execution.stop_conditions import MIN_IDENTICAL_FAILURES, last_error_line
from search.execution.stop_request import StopRequest
from search.ledger.backup import LedgerBackup, check_ledger_file
from search.ledger.driver_lease import Lease
from search.ledger.driver_lease_row import LeaseRow
from search.ledger.ledger import Ledger, sqlite_url
from search.ledger.sampling.backbone_prior import evaluate_prior
from search.ledger.sampling.warm_start_prior import warm_start_summary
from search.ledger.workspace import Workspace
from search.records.epoch_plan import EpochPlan
from search.records.record import SearchRecord
from search.study.phase import Phase, stored_epoch_plan
from search.study.preparation import Prepared
from search.tracking.delivery import Delivery
from search.tracking.stores import default_tracking_uri
from search.views.view import View
from trainables.errors import LeaseLost, SearchError

if TYPE_CHECKING:
    from search.tracking.mirror import Mirror


class Interrupted(KeyboardInterrupt):
    """The user ended the search. The same command resumes it."""


@dataclass
class PhaseRunner:
    """What all phases of one run of the command share.

    Attributes:
        config: of the search.
        retention: one budget for the checkpoints of all phases.
        lease: keeps other drivers out of a ledger on a database server; None for a ledger in the storage, which
            the file lock of ``workspace`` protects.
    """

    config: SearchConfig
    view: View
    workspace: Workspace
    session: Session
    stop_request: StopRequest
    prepared: Prepared
    retention: CheckpointRetention
    lease: Lease | None = None

    @property
    def tracking_uri(self) -> str:
        """MLflow's store: as given, or the file in the storage."""
        return self.config.tracking_uri or default_tracking_uri(self.workspace.storage)

    @contextmanager
    def holding_lease(self) -> Iterator[None]:
        """Keep other machines out of a ledger on a database server.

        The file lock on the storage, which every search holds, does not reach drivers with another storage.

        The lease has to be held before the ledger is read: a driver that loses it may still be writing.
        """
        if self.config.ledger is None:
            yield
            return
        name = self.workspace.name
        row = LeaseRow(self.config.ledger, name, *self.config.directions)
        with Lease(row, name).acquired() as self.lease:
            self.stop_request.taken_over = self.lease.lost
            yield

    def open_phase(
        self, config: SearchConfig, name: str, limit: int, ledger_file: Path, default_plan: EpochPlan
    ) -> Phase:
        """Open a phase, new or resumed.

        Args:
            config: of the phase; a baseline changes some options of the search.
            name: of its study in the ledger.
            limit: trials that the ledger holds in the end.
            ledger_file: the ledger, unless ``config`` names a database; checkpoints are kept next to it.
            default_plan: the epochs of trials if ``config`` leaves them open and the phase is new. A phase that is
                resumed keeps its own.
        """
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
        plan = stored_epoch_plan(ledger) or default_plan
        if config.epochs not in (None, plan.epochs):
            plan = EpochPlan(config.epochs)  # if the phase was begun with another number, opening it raises
        return Phase(
            config=config.replace(epochs=plan.epochs),
            name=name,
            ledger=ledger,
            prepared=self.prepared,
            session=self.session,
            stop_request=self.stop_request.with_deadline(self.config.time_budget),
            checkpoints=ledger_file.parent / "checkpoints",
            logs=self.workspace.logs,
            retention=self.retention,
            storage=self.workspace.storage,
            tracking_uri=self.tracking_uri,
            notify=self.view.update,
            limit=limit,
            backup=LedgerBackup(None if config.ledger else ledger_file, self.view.event),
            epoch_plan=plan,
        )

    @contextmanager
    def delivery(self, phase: Phase, experiment: str) -> Iterator[Delivery]:
        """Deliver a phase to MLflow in the background while the block runs.

        No run stays in the state RUNNING, however the block ends.
        """

        def mirror() -> Mirror:
            from search.tracking.mirror import Mirror  # MLflow takes seconds to import

            return Mirror(self.tracking_uri, experiment=experiment, storage=self.workspace.storage)

        delivery = Delivery(mirror, self.view.event, self.lease.check if self.lease else None)

        def notify(record: SearchRecord) -> None:
            delivery.publish(record)
            self.view.update(record)

        phase.notify = notify
        phase.publish(now=True)
        try:
            yield delivery
        except LeaseLost:
            delivery.discard()  # the runs belong to the process that took over
            raise
        except BaseException as error:
            delivery.abandon("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise

    def run_trials(self, phase: Phase) -> None:
        """Run the trials of a phase that are not done.

        Raises:
            Interrupted: the user ended the search.
            SearchError: no trial has a result, or the first ones all failed with the same error.
        """
        if phase.config.transfers:  # transferability scores are meaningless for random weights
            phase.set_prior(self.view.event)
        phase.run()
        self.raise_if_stopped()
        record = phase.record()
        if worth := evaluate_prior(record):
            self.view.event(f"prior: {worth}")
        if summary := warm_start_summary(record):
            self.view.event(f"warm start: {summary}")
        if phase.stopped == "failing_alike":
            raise SearchError(same_error_message(record))
        if record.best is None:
            raise SearchError(no_result_message(record))

    def raise_if_stopped(self) -> None:
        """Go no further if the user ended the search, or another process has taken over.

        Raises:
            Interrupted: the user ended the search.
            LeaseLost: another process drives the search now.
        """
        if self.lease is not None:
            self.lease.check()
        if self.stop_request.signalled.is_set():
            raise Interrupted


def same_error_message(record: SearchRecord) -> str:
    """Return the message of a search whose first trials all failed with the same error; it quotes the error once."""
    last = [t for t in record.trials if last_error_line(t)][-1]
    return (
        f"trials: the first {MIN_IDENTICAL_FAILURES} all ended with the same error, so no more were started:\n"
        f"  {last_error_line(last)}\n"
        f"`unfreeze status --verbose {record.name}` shows where it was raised (storage: {record.storage}). Once the "
        "cause is removed, the same command runs the remaining trials."
    )


def no_result_message(record: SearchRecord) -> str:
    """Return the message of a search without a best trial; it quotes the first failure."""
    failed = [t for t in record.trials if t.error]
    count = len(record.trials)
    if not failed and record.stopped == "time_budget":
        return (
            "time_budget: expected enough time for one epoch of one trial, but it ran out before. Give more and run "
            "the same command again"
        )
    if not failed:
        return f"trials: expected at least one with a result, received {count} without any"
    return f"trials: none of {count} has a result; trial {failed[0].number} ended with: {last_error_line(failed[0])}"


def checkpoint_retention(config: SearchConfig, workspace: Workspace, view: View) -> CheckpointRetention:
    """One budget for the checkpoints of the search and its baselines."""
    budget = config.checkpoint_budget
    if budget is None:
        folders = ("", *map(workspace.baseline_folder, BASELINE_SOURCES))
        budget = default_checkpoint_budget(*map(workspace.checkpoints, folders))
    return CheckpointRetention(budget, view.event)
