"""Run ``unfreeze search`` as a process that tests suspend, resume and kill, and check its results."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import psutil
from mlflow_store import put_empty_store

from search.ledger.reader import read_record
from search.records.record import SearchRecord
from trainables.errors import LedgerError

MARK = "UNFREEZE_TEST_FOLDER"
"""Environment variable that identifies a command and all processes that it starts."""

SMALL = ("--baseline-trials", "0", "--confirm-seeds", "1", "--probe", "off", "--finalists", "1", "--no-refit")
"""Options that keep a search short. Later arguments override them, such as those of :data:`WHOLE`."""

WHOLE = ("--probe", "on", "--finalists", "2", "--refit")
"""Options of a search that has all stages: the frozen probe, finalists, and a last training on all labels."""


@dataclass
class SearchCommand:
    """``unfreeze search`` with one storage. It may be started repeatedly.

    ``arguments`` come after the storage; ``storage`` is in ``folder`` unless another one is given. With
    ``copied_store`` the first start finds an empty MLflow store, which saves the seconds that its creation takes.
    """

    folder: Path
    arguments: tuple[str, ...]
    storage: Path | None = None
    ledger: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    starts: int = 0
    copied_store: bool = True

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Start the command, with ``more`` arguments."""
        self.starts += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.starts == 1 and self.copied_store and "--tracking-uri" not in self.arguments:
            put_empty_store(self._storage)
        line = [str(Path(sys.executable).parent / "unfreeze"), "search", "--storage", str(self._storage)]
        line += [*SMALL, *self.arguments, *more]
        if self.ledger:
            line += ["--ledger", self.ledger]
        environment = {**os.environ, **self.environment, MARK: str(self.folder)}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                line, cwd=self.folder, stdout=log, stderr=log, env=environment, text=True
            )
        return self.process

    def run(self, *more: str, seconds: float = 400) -> str:
        """Run the command to its end and return its output. Raises AssertionError if it fails."""
        code = self.start(*more).wait(seconds)
        assert code == 0, self.log()
        return self.log()

    def log(self) -> str:
        """The output of the last start."""
        return self._log.read_text()

    def record(self) -> SearchRecord | None:
        """The search's record from its ledger, or None if it has not begun."""
        try:
            return read_record("digits", str(self._storage), self.ledger)
        except LedgerError:
            return None

    def wait_for(self, told: Callable[[SearchRecord], bool], seconds: float = 300) -> SearchRecord:
        """Wait until ``told`` returns true for the record. Raises AssertionError if the command ends before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            record = self.record()
            if record is not None and told(record):
                return record
            time.sleep(0.2)
        raise AssertionError(f"not in time: {self.log()}")

    def processes(self) -> list[psutil.Process]:
        """All running processes that this command has started, directly or indirectly."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                if process.environ().get(MARK) == str(self.folder):
                    found.append(process)
        return found

    def signal_all(self, which: signal.Signals) -> None:
        """Send a signal to all of these processes. SIGSTOP suspends them, SIGCONT resumes them."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(which)

    def kill(self) -> None:
        """Kill all of these processes."""
        self.signal_all(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(60)

    @property
    def _storage(self) -> Path:
        return self.storage or self.folder / "runs"

    @property
    def _log(self) -> Path:
        return self.folder / f"log-{self.starts:02d}.txt"


@dataclass
class SuggestedConfigurations:
    """The configurations that a search has suggested so far, to check that a restart changes none."""

    command: SearchCommand
    parameters: int = 4
    known: dict[int, dict[str, object]] = field(default_factory=dict)

    def check(self) -> None:
        """Check that no configuration has changed since the last call. An incomplete one was not suggested yet."""
        record = self.command.record()
        for trial in record.trials if record else ():
            if len(trial.params) == self.parameters:
                assert self.known.setdefault(trial.number, dict(trial.params)) == dict(trial.params), (
                    trial.number
                )


def epochs(record: SearchRecord) -> int:
    """Number of epochs of all trials in the ledger."""
    return sum(len(trial.epochs) for trial in record.trials)


def expect_whole(record: SearchRecord | None, trials: int) -> SearchRecord:
    """Check that ``trials`` trials have ended, each configuration once and without gaps in the epochs."""
    assert record is not None
    assert [t.number for t in record.trials] == list(range(trials))
    assert {t.state for t in record.trials} <= {"complete", "pruned"}
    assert max(Counter(tuple(sorted(t.params.items())) for t in record.trials).values()) == 1
    assert all([e.epoch for e in t.epochs] == list(range(1, len(t.epochs) + 1)) for t in record.trials)
    return record


def expect_delivered(record: SearchRecord, tracking_uri: str | None = None) -> None:
    """Check that MLflow has one ended run per trial and one for the search, each epoch once, and one model version."""
    client = mlflow.MlflowClient(tracking_uri or record.tracking_uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`unfreeze.search` = '{record.name}'", max_results=1000)
    assert len(runs) == len(record.trials) + 1
    statuses = Counter(run.info.status for run in runs)
    assert statuses == Counter(FINISHED=1 + record.count("complete"), KILLED=record.count("pruned"))
    known = {trial.number: trial for trial in record.trials}
    for run in runs:
        if "unfreeze.trial" in run.data.tags:
            points = client.get_metric_history(run.info.run_id, "val_accuracy")
            epochs = known[int(run.data.tags["unfreeze.trial"])].epochs
            assert [(p.step, p.value) for p in points] == [(e.epoch, e.val_accuracy) for e in epochs]
    if record.config["register_model"]:
        assert len(client.search_model_versions("name = 'unfreeze-digits'")) == 1
