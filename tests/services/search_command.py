"""``unfreeze search`` as a process that tests stop, wake and kill, and what it has left behind."""

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

from search.ledger.reader import read_record
from search.records.record import SearchRecord
from trainables.errors import LedgerError

MARK = "UNFREEZE_TEST_FOLDER"
"""In the environment of each command, and so of all that it starts."""

SMALL = ("--baseline-trials", "0", "--confirm-seeds", "1")


@dataclass
class SearchCommand:
    """``unfreeze search`` with one storage, started as often as need be.

    ``arguments`` come after the storage; ``storage`` is in ``folder`` unless another one is given.
    """

    folder: Path
    arguments: tuple[str, ...]
    storage: Path | None = None
    ledger: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    starts: int = 0

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Start the command, with ``more`` arguments."""
        self.starts += 1
        self.folder.mkdir(parents=True, exist_ok=True)
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
        """Run it to its end; what it printed. It must succeed."""
        code = self.start(*more).wait(seconds)
        assert code == 0, self.log()
        return self.log()

    def log(self) -> str:
        """What the newest start has printed."""
        return self._log.read_text()

    def record(self) -> SearchRecord | None:
        """The search as its ledger has it now; None before it has begun."""
        try:
            return read_record("digits", str(self._storage), self.ledger)
        except LedgerError:
            return None

    def wait_for(self, told: Callable[[SearchRecord], bool], seconds: float = 300) -> SearchRecord:
        """Until the ledger says so, while the command runs."""
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
        """Everything that runs now and was started, by whatever way, by this command."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                if process.environ().get(MARK) == str(self.folder):
                    found.append(process)
        return found

    def signal_all(self, which: signal.Signals) -> None:
        """Send a signal to all of them: SIGSTOP puts them to sleep, SIGCONT wakes them."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(which)

    def kill(self) -> None:
        """End all of them at once, if there are any left."""
        self.signal_all(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(60)

    @property
    def _storage(self) -> Path:
        return self.storage or self.folder / "runs"

    @property
    def _log(self) -> Path:
        return self.folder / f"log-{self.starts:02d}.txt"


def epochs(record: SearchRecord) -> int:
    """How many epochs are in the ledger."""
    return sum(len(trial.epochs) for trial in record.trials)


def expect_whole(record: SearchRecord | None, trials: int) -> SearchRecord:
    """The ledger holds exactly so many trials, ended, each once, with epochs one after another."""
    assert record is not None
    assert [t.number for t in record.trials] == list(range(trials))
    assert {t.state for t in record.trials} <= {"complete", "pruned"}
    assert max(Counter(tuple(sorted(t.params.items())) for t in record.trials).values()) == 1
    assert all([e.epoch for e in t.epochs] == list(range(1, len(t.epochs) + 1)) for t in record.trials)
    return record


def expect_delivered(record: SearchRecord, tracking_uri: str | None = None) -> None:
    """MLflow holds one run a trial and one for the search, none running, with each epoch once; one model version."""
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
