"""Test that after any kill of the driver the same command ends with the result of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import psutil
import pytest

from search.fault_injection import FAILPOINTS, KILL_AT_VARIABLE
from search.ledger.reader import read_record
from search.records.record import SearchRecord
from trainables.errors import LedgerError

TRIALS, EPOCHS = 16, 4

MARK = "UNFREEZE_TEST_FOLDER"
"""Environment variable that identifies a driver and all processes that it starts."""

PLACES = tuple(os.environ.get("UNFREEZE_KILL_PLACES", "").split()) or (
    "suggested:2",
    "ending",
    "run-created",
    "retrained",
    "measured",
    "version-created",
    "finished",
)
"""Failpoints at which the driver dies, one after another. UNFREEZE_KILL_PLACES names others."""


@dataclass
class Driver:
    """``unfreeze search`` with one storage. It may be started repeatedly."""

    folder: Path
    trials: int
    arguments: tuple[str, ...] = ()
    starts: int = 0
    suggested: dict[int, dict[str, object]] = field(default_factory=dict)

    def start(self, kill_at: str | None = None) -> subprocess.Popen[str]:
        """Start the command, to die at a failpoint if one is named."""
        self.starts += 1
        line = [
            str(Path(sys.executable).parent / "unfreeze"),
            "search",
            "--storage",
            str(self.folder / "runs"),
        ]
        line += ["--trials", str(self.trials), "--epochs", str(EPOCHS), "--baseline-trials", "0"]
        line += ["--confirm-seeds", "2", *self.arguments]
        environment = {k: v for k, v in os.environ.items() if k != KILL_AT_VARIABLE}
        environment[MARK] = str(self.folder)
        if kill_at:
            environment[KILL_AT_VARIABLE] = kill_at
        log = (self.folder / f"log-{self.starts:02d}.txt").open("w")
        with log:
            return subprocess.Popen(line, cwd=self.folder, stdout=log, stderr=log, env=environment, text=True)

    def log(self) -> str:
        """The output of the last start."""
        return (self.folder / f"log-{self.starts:02d}.txt").read_text()

    def record(self) -> SearchRecord | None:
        """The search's record from its ledger, or None if it has not begun."""
        try:
            return read_record("digits", str(self.folder / "runs"))
        except LedgerError:
            return None

    def look(self) -> None:
        """Check that a configuration never changes once it was suggested."""
        record = self.record()
        for trial in record.trials if record else ():
            if len(trial.params) == 4:
                known = self.suggested.setdefault(trial.number, dict(trial.params))
                assert known == dict(trial.params), trial.number

    def wait_for_trials(self, process: subprocess.Popen[str]) -> None:
        """Wait until the last start has opened its ledger and runs trials, or has ended."""
        end = time.monotonic() + 120
        while process.poll() is None and "\ndigits: " not in self.log() and time.monotonic() < end:
            time.sleep(0.05)

    def kill_after(self, process: subprocess.Popen[str], seconds: float) -> None:
        """Kill the process with SIGKILL after ``seconds``, unless it has ended."""
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait(60)


def check(driver: Driver) -> None:
    """Check that ledger, MLflow and registry hold everything exactly once."""
    record = driver.record()
    assert record is not None
    assert [t.number for t in record.trials] == list(range(driver.trials))
    assert {t.state for t in record.trials} <= {"complete", "pruned"}
    configurations = Counter(tuple(sorted(t.params.items())) for t in record.trials)
    assert max(configurations.values()) == 1
    assert all([e.epoch for e in t.epochs] == list(range(1, len(t.epochs) + 1)) for t in record.trials)
    client = mlflow.MlflowClient(record.tracking_uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`unfreeze.search` = 'digits'", max_results=1000)
    assert len(runs) == driver.trials + 1
    statuses = Counter(r.info.status for r in runs)
    assert statuses == Counter(FINISHED=1 + record.count("complete"), KILLED=record.count("pruned"))
    for run in runs:
        if "mlflow.parentRunId" in run.data.tags:
            points = client.get_metric_history(run.info.run_id, "val_accuracy")
            assert len({p.step for p in points}) == len(points)
    assert len(client.search_model_versions("name = 'unfreeze-digits'")) == 1


def processes_of(folder: Path) -> dict[int, str]:
    """All running processes that a driver of ``folder`` has started, directly or indirectly."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if process.environ().get(MARK) == str(folder):
                found[process.pid] = " ".join(process.cmdline())
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_every_failpoint_the_search_ends_complete_and_leaves_no_process(tmp_path: Path) -> None:
    driver = Driver(tmp_path, trials=4)
    assert {place.partition(":")[0] for place in PLACES} <= set(FAILPOINTS)
    for seam in PLACES:
        process = driver.start(seam)
        process.wait(240)
        assert process.returncode == -signal.SIGKILL, (seam, driver.log())
        driver.look()
    assert driver.start().wait(240) == 0, driver.log()
    driver.look()
    check(driver)
    end = time.monotonic() + 60
    while (left := processes_of(tmp_path)) and time.monotonic() < end:
        time.sleep(0.5)
    assert left == {}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_kills_at_any_moment_lose_nothing(tmp_path: Path) -> None:
    chance = random.Random(os.environ.get("UNFREEZE_KILL_SEED", "7"))
    driver = Driver(tmp_path, TRIALS, ("--confirm-seeds", "1"))
    for kill in range(20):
        process = driver.start()
        if kill % 2:  # during the start, which takes several seconds
            driver.kill_after(process, chance.uniform(0.5, 6))
        else:
            driver.wait_for_trials(process)
            driver.kill_after(process, chance.uniform(0, 4))
        driver.look()
    assert driver.start().wait(400) == 0, driver.log()
    driver.look()
    check(driver)
