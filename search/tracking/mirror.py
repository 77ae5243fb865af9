"""Mirror a search's ledger in MLflow: one parent run for the search, one child run for each trial.

The ledger is the truth. A :class:`Mirror` compares what MLflow should contain (:mod:`search.tracking.run_content`)
with what it is known to contain (:mod:`search.tracking.run_snapshot`) and sends the difference. So every call may be
repeated, interrupted or continued by another process, and no run is lost or duplicated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from search.tracking.client import connect, translate_errors

# isort: split
from mlflow.exceptions import MlflowException

from search.fault_injection import failpoint
from search.records.record import SearchRecord, TrialRecord
from search.tracking.experiments import describe_experiment
from search.tracking.run_content import search_content, trial_content
from search.tracking.run_snapshot import SearchRuns, find_runs
from search.tracking.run_writer import RunWriter
from search.tracking.stores import absolute_uri, artifact_location
from trainables.errors import TrackingError

ParentStatus = Literal["FINISHED", "KILLED", "FAILED"]
_STATES = {"FINISHED": "complete", "KILLED": "interrupted", "FAILED": "failed"}


class Mirror:
    """The MLflow runs of one search. Not thread-safe.

    Args:
        tracking_uri: a server or a database; a missing SQLite file is created.
        experiment: name of the experiment; it is created if it does not exist.
        storage: the search's storage, in which a store without a server keeps artifacts.
        verbose: let MLflow log.

    Attributes:
        after_trial: called after each trial, so that a background thread can pause.
        delivered: how often something new was delivered; callers that wait can see progress.

    Raises:
        TrackingError: the store is unreachable or refuses.
    """

    def __init__(self, tracking_uri: str, *, experiment: str, storage: Path, verbose: bool = False) -> None:
        self.tracking_uri = absolute_uri(tracking_uri)
        self._client = connect(self.tracking_uri, verbose)
        with translate_errors(self.tracking_uri):
            self._experiment = self._open_experiment(experiment, storage)
        self._writer = RunWriter(self._client, self._experiment)
        self._runs: SearchRuns | None = None
        self._marks: dict[int, object] = {}
        self.after_trial: Callable[[], None] = lambda: None
        self.delivered = 0

    @property
    def experiment_id(self) -> str:
        """MLflow's id of the experiment."""
        return self._experiment

    @property
    def parent_run_id(self) -> str:
        """MLflow's id of the search's run. Raises TrackingError before the first :meth:`sync`."""
        return self._require_runs().parent.run_id

    def run_id(self, trial: int) -> str:
        """Return MLflow's id of a trial's run.

        Raises:
            TrackingError: the trial has no run.
        """
        child = self._require_runs().children.get(trial)
        if child is None:
            raise TrackingError(f"trial: expected the number of a trial with an MLflow run, received {trial}")
        return child.run_id

    def sync(self, record: SearchRecord) -> None:
        """Send everything of ``record`` that MLflow does not have. Trials without news cost nothing.

        Raises:
            TrackingError: something was not delivered; call again.
        """
        with self._delivering():
            runs = self._find_or_create_runs(record)
            self._writer.update(runs.parent, search_content(record), record.task, record.source)
            for trial in record.trials:
                self._sync_trial(runs, record, trial)

    def close(self, record: SearchRecord, status: ParentStatus = "FINISHED") -> None:
        """Send the rest and end all open runs: unfinished trials get the status KILLED and the state ``interrupted``.

        A later :meth:`sync` reopens those runs. Runs are searched once more before they are ended, to find those
        that were created by a request whose answer was lost.
        """
        self.sync(record)
        # Forget all runs and find them again: a request whose answer was lost may have created a duplicate.
        self._forget()
        self.sync(record)
        now = int(time.time() * 1000)
        with self._delivering():
            runs = self._require_runs()
            for number, child in runs.children.items():
                if child.status in ("RUNNING", "SCHEDULED"):
                    # Without its mark the trial counts as not delivered, so that a later sync reopens its
                    # run.
                    self._marks.pop(number, None)
                    self._writer.terminate(child, "KILLED", "interrupted", now)
            self._writer.terminate(runs.parent, status, _STATES[status], now)

    def undelivered(self, record: SearchRecord) -> int:
        """Count the trials of ``record`` with news that MLflow does not have."""
        return sum(
            self._marks.get(t.number) != _fingerprint(record, t)
            for t in record.trials
            if t.state != "waiting"
        )

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file or a folder to the artifacts of the search's run; files of the same name are replaced."""
        with translate_errors(self.tracking_uri):
            self._client.log_artifact(self.parent_run_id, str(path), folder)

    def _sync_trial(self, runs: SearchRuns, record: SearchRecord, trial: TrialRecord) -> None:
        # A waiting trial gets its run when it starts.
        mark = _fingerprint(record, trial)
        child = runs.children.get(trial.number)
        if self._marks.get(trial.number) == mark or (trial.state == "waiting" and child is None):
            return
        content = trial_content(record, trial, runs.parent.run_id)
        if child is None:
            # Remembered at once: if the update fails, the next one continues this run instead of creating another.
            child = runs.children[trial.number] = self._writer.create(content)
            failpoint("run-created")
        self._writer.update(child, content, record.task, record.source)
        # Marked as delivered only after everything was sent: an error before that repeats the whole trial, which is
        # harmless.
        self._marks[trial.number] = mark
        self.delivered += 1
        self.after_trial()
        failpoint("run-delivered")

    def _find_or_create_runs(self, record: SearchRecord) -> SearchRuns:
        if self._runs is None:
            runs = find_runs(self._client, self._experiment, record)
            if runs is None:
                runs = SearchRuns(self._writer.create(search_content(record)), {})
                self.delivered += 1
            self.delivered += describe_experiment(self._client, self._experiment, record)
            self._runs = runs
        return self._runs

    def _require_runs(self) -> SearchRuns:
        if self._runs is None:
            raise TrackingError("this search has no MLflow runs yet: call sync first")
        return self._runs

    @contextmanager
    def _delivering(self) -> Iterator[None]:
        """Forget what MLflow is known to contain after an error: it is unknown which requests were executed."""
        try:
            with translate_errors(self.tracking_uri):
                yield
        except TrackingError:
            self._forget()
            raise

    def _forget(self) -> None:
        self._runs = None
        self._marks.clear()

    def _open_experiment(self, name: str, storage: Path) -> str:
        known = self._client.get_experiment_by_name(name)
        if known is None:
            try:
                location = artifact_location(self.tracking_uri, storage)
                return str(self._client.create_experiment(name, location))
            except MlflowException as error:
                # Another search may have created it in the meantime.
                known = self._client.get_experiment_by_name(name)
                if known is None:
                    raise error
        if known.lifecycle_stage == "deleted":
            raise TrackingError(
                f"MLflow's experiment {name!r} is deleted. Restore it with `mlflow experiments restore "
                f"--experiment-id {known.experiment_id}`, or use another tracking store."
            )
        return str(known.experiment_id)


def _fingerprint(record: SearchRecord, trial: TrialRecord) -> object:
    """Return a value that changes with every news of a trial.

    It has to be cheap, since it is computed for every trial at every sync.
    """
    outcome = record.outcome_of(trial.number)
    best = trial.number in record.front_numbers
    return trial.state, len(trial.epochs), outcome, outcome is not None and outcome is record.outcome, best
