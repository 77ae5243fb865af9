"""Nodes die, come late, or are of several kinds; the cluster itself goes away."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from search.engine import Engine
from search.record import SearchRecord
from tests.faults.clusters import Search, machines

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

EPOCHS = 8
LONG = ("--epochs", str(EPOCHS), "--scheduler", "none", "--batch-size", "4", "--space")
"""Trials that last some seconds."""
SPACE = "unfreeze_depth: {low: 2, high: 3}\n"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A storage on another file system than the caches of the nodes, as a shared one is."""
    folder = Path(tempfile.mkdtemp(prefix="storage ü ", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def search(tmp_path: Path, shared: Path) -> Iterator[Search]:
    made = Search(tmp_path, shared / "runs", (), {"UNFREEZE_CACHE": str(tmp_path / "cache ü")})
    yield made
    made.stop()


def check(record: SearchRecord | None, trials: int, epochs: int = EPOCHS) -> None:
    """Everything is there, once."""
    assert record is not None
    assert [t.number for t in record.trials] == list(range(trials))
    assert {t.state for t in record.trials} == {"complete"}
    assert all([e.epoch for e in t.epochs] == list(range(1, epochs + 1)) for t in record.trials)
    client = mlflow.MlflowClient(record.tracking_uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`unfreeze.search` = 'digits'", max_results=1000)
    assert [r.info.status for r in runs] == ["FINISHED"] * (trials + 1)


def uninterrupted(record: SearchRecord, number: int, storage: Path) -> list[float]:
    """The training losses of a trial when nothing happens to it."""
    trial = record.trials[number]
    place = {
        "backbone": str(next(storage.glob("digits/backbone-*.keras"))),
        "task": str(next(storage.glob(".data/*/task.json")).parent),
    }
    engine = Engine(threads=1)
    request = {"method": trial.method, "params": dict(trial.params), "epochs": EPOCHS, "seed": trial.seed}
    engine.begin("again", {**request, "batch_size": 4}, place)
    losses = [engine.epoch("again")["train_loss"] for _ in range(EPOCHS)]
    engine.end("again")
    return losses


@pytest.mark.timeout(600)
def test_a_trial_whose_node_dies_again_and_again_goes_on_elsewhere_and_it_costs_no_retry(
    search: Search,
) -> None:
    search.arguments = ("--trials", "2", "--max-concurrent", "1", *LONG, "core")
    with machines() as nodes:
        node = nodes.add()
        search.start(nodes.address)
        for round_ in range(3):  # once more than a trial may fail
            search.until(lambda epochs=2 * round_ + 1: search.epochs(0) >= epochs)  # type: ignore[misc]
            if round_ == 2:
                nodes.add()  # this time another one is there already
            nodes.kill(node)
            node = nodes.workers[-1] if round_ == 2 else nodes.add()
        assert search.end() == 0, search.log()
        assert search.log().count("nodes: lost") == 3
        assert "has joined" in search.log()
    record = search.record()
    check(record, 2)
    assert record is not None
    assert [e.train_loss for e in record.trials[0].epochs] == pytest.approx(
        uninterrupted(record, 0, search.storage), rel=1e-4
    )
    copies = [p for p in (search.folder / "cache ü" / "data").iterdir() if p.is_dir()]
    assert [p.name for p in copies] == [f"{record.task.digest[:32]}-digits"]
