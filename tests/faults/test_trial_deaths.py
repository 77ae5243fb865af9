"""Test processes of trials and engines that are killed or stopped while a search runs.

Trials continue with the numbers that they would have had, and a faulty trial costs only itself a retry."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow
import psutil
import pytest

from search.fault_injection import TRIAL_FAULTS_VARIABLE
from search.ledger.reader import read_record
from search.records.record import SearchRecord, TrialRecord
from trainables.errors import LedgerError

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

MARK = "UNFREEZE_TEST_FOLDER"
"""Environment variable that identifies a search and all processes that it starts."""

EPOCHS = 24
PATIENCE = 600.0
"""Time limit in seconds for everything that a test waits for, on a busy machine."""

ENGINE, TRIAL = "ray::LoggedEngine", "ray::ResourceTrainable.train"
"""Names of the processes while they work. Ray Tune wraps the trial's class."""


@dataclass
class Search:
    """``unfreeze search`` on the first of :func:`configurations`, in a separate process."""

    folder: Path
    trials: int
    epochs: int = EPOCHS

    def start(self, *arguments: str, faults: str = "") -> subprocess.Popen[str]:
        """Start the search. Its trials differ from each other but are the same in every search."""
        enqueued = self.folder / "enqueued.jsonl"
        enqueued.write_text("".join(json.dumps(c) + "\n" for c in configurations(self.trials)))
        line = [str(Path(sys.executable).parent / "unfreeze"), "search", "--enqueue", str(enqueued)]
        line += [
            "--storage",
            str(self.folder / "runs"),
            "--trials",
            str(self.trials),
            "--epochs",
            str(self.epochs),
        ]
        line += [
            "--probe",
            "off",
            "--scheduler",
            "none",
            "--baseline-trials",
            "0",
            "--confirm-seeds",
            "1",
            "--no-register",
        ]
        environment = {**os.environ, MARK: str(self.folder), TRIAL_FAULTS_VARIABLE: faults}
        with (self.folder / "log.txt").open("a") as log:
            return subprocess.Popen(
                [*line, *arguments], cwd=self.folder, stdout=log, stderr=log, env=environment, text=True
            )

    @property
    def log(self) -> str:
        """The output of the search."""
        return (self.folder / "log.txt").read_text()

    @property
    def record(self) -> SearchRecord:
        """The search's record from its ledger."""
        return read_record("digits", str(self.folder / "runs"))

    def process(self, name: str) -> psutil.Process:
        """A process of the search with this name."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                title = " ".join(process.cmdline())
                if title.startswith(name) and process.environ().get(MARK) == str(self.folder):
                    return process
        raise LookupError(f"no {name} in {self.folder}")

    def wait(self, what: Callable[[tuple[TrialRecord, ...]], bool]) -> None:
        """Wait until the trials fulfil a condition."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(LedgerError):
                if what(self.record.trials):
                    return
            time.sleep(0.1)
        raise TimeoutError(self.log)


def configurations(count: int) -> list[dict[str, object]]:
    """Configurations with a depth at which an epoch takes a moment."""
    fixed = {"head_units": 0, "augmentation_strength": 0.5}
    return [{"unfreeze_depth": 4, "learning_rate": 1e-3 * (number + 1), **fixed} for number in range(count)]


def losses(trial: TrialRecord) -> list[float]:
    assert [e.epoch for e in trial.epochs] == list(range(1, EPOCHS + 1))
    return [e.train_loss for e in trial.epochs] + [e.val_loss for e in trial.epochs]


def all_past(epoch: int) -> Callable[[tuple[TrialRecord, ...]], bool]:
    return lambda trials: bool(trials) and all(len(t.epochs) > epoch for t in trials)


def past_what_they_were(trials: tuple[TrialRecord, ...]) -> Callable[[tuple[TrialRecord, ...]], bool]:
    """Whether each trial has run at least two more epochs. One may have been in progress when the process died."""
    return lambda now: all(
        len(n.epochs) >= min(len(t.epochs) + 2, EPOCHS) for n, t in zip(now, trials, strict=True)
    )


def runs_of(record: SearchRecord) -> dict[str, mlflow.entities.Run]:
    """The MLflow runs of the trials by number. Checks that each trial has exactly one run."""
    client = mlflow.MlflowClient(record.tracking_uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`unfreeze.search` = 'digits'", max_results=1000)
    assert len(runs) == len(record.trials) + 1
    assert "RUNNING" not in {run.info.status for run in runs}
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    for run in children:
        points = client.get_metric_history(run.info.run_id, "val_accuracy")
        assert max(Counter(p.step for p in points).values(), default=1) == 1
    return {run.data.tags["unfreeze.trial"]: run for run in children}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialRecord, ...]:
    """The records of two undisturbed trials that run at the same time."""
    search = Search(tmp_path_factory.mktemp("undisturbed"), 2)
    assert search.start("--max-concurrent", "2").wait(PATIENCE) == 0, search.log
    return search.record.trials


@pytest.mark.timeout(1500)
def test_killed_processes_change_no_result_and_only_killed_trials_are_charged(
    tmp_path: Path, undisturbed: tuple[TrialRecord, ...]
) -> None:
    search = Search(tmp_path, 2)
    process = search.start("--max-concurrent", "2")
    search.wait(all_past(2))
    for name in (ENGINE, TRIAL):
        before = search.record.trials
        search.process(name).send_signal(signal.SIGKILL)
        search.wait(past_what_they_were(before))
    assert process.wait(PATIENCE) == 0, search.log
    record = search.record
    assert [losses(t) for t in record.trials] == [losses(t) for t in undisturbed]
    assert [t.state for t in record.trials] == ["complete", "complete"]
    assert sorted(t.retries for t in record.trials) == [0, 1]  # the one whose own process was killed
    again = {str(t.number): str(t.retries) for t in record.trials if t.retries}
    tags = {number: run.data.tags.get("unfreeze.retries") for number, run in runs_of(record).items()}
    assert {number: tag for number, tag in tags.items() if tag} == again
    assert "an engine process crashed while running 2 trials; retrying them one at a time" in search.log


@pytest.mark.timeout(1500)
def test_a_hanging_engine_is_killed_and_its_trials_are_retried(
    tmp_path: Path, undisturbed: tuple[TrialRecord, ...]
) -> None:
    search = Search(tmp_path, 2)
    process = search.start("--max-concurrent", "2", "--trial-timeout", "45s")
    search.wait(all_past(2))
    before = search.record.trials
    search.process(ENGINE).send_signal(signal.SIGSTOP)
    search.wait(past_what_they_were(before))
    assert process.wait(PATIENCE) == 0, search.log
    record = search.record
    assert [losses(t) for t in record.trials] == [losses(t) for t in undisturbed]
    assert [t.retries for t in record.trials] == [0, 0]
    assert "an engine process hung while running 2 trials" in search.log


@pytest.mark.timeout(1500)
def test_faulty_trials_fail_with_their_reasons_and_other_trials_are_not_charged(tmp_path: Path) -> None:
    search = Search(tmp_path, 5, epochs=4)
    faults = "1:kill 2:memory>16 4:memory"
    arguments = (
        "--max-concurrent",
        "3",
        "--cpus-per-trial",
        "0.5",
        "--max-retries",
        "1",
        "--trial-timeout",
        "1d",
    )
    assert search.start(*arguments, faults=faults).wait(PATIENCE) == 0, search.log
    record = search.record
    found = [(t.state, t.reason, t.retries, t.batch_size) for t in record.trials]
    assert found == [
        ("complete", None, 0, None),
        ("failed", "crashed", 1, None),
        ("complete", None, 0, 16),
        ("complete", None, 0, None),
        ("pruned", "out_of_memory", 0, 16),
    ]
    assert str(record.trials[1].error).splitlines()[-1] == "its process died, 2 times"
    assert search.log.count("an engine process") <= 2
    runs = runs_of(record)
    assert runs["2"].data.tags["unfreeze.batch_size"] == "16"
    assert "batches of 16" in runs["2"].data.tags["mlflow.note.content"]
    assert runs["4"].data.tags["unfreeze.reason"] == "out_of_memory"
    shown = subprocess.run(
        [
            str(Path(sys.executable).parent / "unfreeze"),
            "status",
            "digits",
            "--storage",
            str(tmp_path / "runs"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "1 trial (1): crashed: its process died, 2 times" in shown
