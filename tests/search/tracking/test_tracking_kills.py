"""A session is killed (SIGKILL) while it writes to MLflow; the next one leaves each trial once, ended."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from search.tracking.stores import default_tracking_uri

mlflow = pytest.importorskip("mlflow")
pytestmark = pytest.mark.slow

TRIALS, EPOCHS = 40, 3

SESSION = textwrap.dedent("""
    import sys
    from datetime import UTC, datetime
    from pathlib import Path
    from search.records.record import BackboneSummary, EpochMetrics, SearchRecord, TaskSummary, TrialRecord
    from search.tracking.stores import default_tracking_uri
    from search.tracking.mirror import Mirror

    START = datetime(2025, 3, 1, tzinfo=UTC)
    TRIALS, EPOCHS = 40, 3

    def trial(number, epochs, done):
        curve = tuple(EpochMetrics(e, 0.1 * e, 1 / e, 1 / e, 0.1) for e in range(1, epochs + 1))
        state = ("complete", "pruned", "failed")[number % 3] if done else "running"
        params = {"learning_rate": 0.01, "unfreeze_depth": number % 3}
        return TrialRecord(number, state, "finetune", params, 0.1, curve, started=START, ended=START)

    def search(trials):
        task = TaskSummary("digits", "d" * 64, ("a", "b"), {"train": 20}, (8, 8), "digits")
        backbone = BackboneSummary("print", "default", "b" * 64, (32, 32), 60_000, ("stem", "top"))
        return SearchRecord("s", "val_accuracy", "maximize", task, backbone, {}, trials, TRIALS, started=START)

    storage = Path(sys.argv[1])
    mirror = Mirror(default_tracking_uri(storage), experiment="unfreeze/digits", storage=storage)
    print("ready", flush=True)
    for number in range(TRIALS):
        for epoch in range(1, EPOCHS + 1):
            done = tuple(trial(n, EPOCHS, True) for n in range(number))
            mirror.sync(search((*done, trial(number, epoch, False))))
    mirror.close(search(tuple(trial(n, EPOCHS, True) for n in range(TRIALS))))
""")


def start(storage: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION, str(storage)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_repeated_kills_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    storage, instants = tmp_path / "Läufe", random.Random(4)
    for _ in range(5):
        session = start(storage)
        time.sleep(instants.uniform(0.02, 1.5))
        session.send_signal(signal.SIGKILL)
        session.wait()
    assert start(storage).wait(timeout=120) == 0

    client = mlflow.MlflowClient(default_tracking_uri(storage))
    known = client.get_experiment_by_name("unfreeze/digits")
    runs = client.search_runs([known.experiment_id], max_results=1000)
    trials = sorted(int(r.data.tags["unfreeze.trial"]) for r in runs if "unfreeze.trial" in r.data.tags)
    assert len(runs) == TRIALS + 1
    assert trials == list(range(TRIALS))
    assert "RUNNING" not in {run.info.status for run in runs}
    for run in runs:
        if "unfreeze.trial" in run.data.tags:
            assert len(run.data.params) == 2
            assert len(run.inputs.dataset_inputs) == 1
            steps = [m.step for m in client.get_metric_history(run.info.run_id, "val_loss")]
            assert steps == [1, 2, 3]
