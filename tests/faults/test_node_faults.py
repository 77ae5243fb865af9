"""Test nodes that die, join late or differ, and a cluster whose head dies."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from local_cluster import ClusterSearch, local_cluster

from search.execution.cluster.cluster_watchdog import GRACE_SECONDS, LOST_AFTER_SECONDS
from search.execution.engines.engine import Engine
from search.execution.engines.messages import TrialRequest, WorkbenchPaths
from search.records.record import SearchRecord
from trainables.training.trial_config import TrialConfig

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

EPOCHS = 12
LONG = ("--epochs", str(EPOCHS), "--scheduler", "none", "--batch-size", "2", "--space")
"""Options for trials that take some seconds."""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A storage on another file system than the caches of the nodes, as shared storage is."""
    folder = Path(tempfile.mkdtemp(prefix="storage ü ", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def search(tmp_path: Path, shared: Path) -> Iterator[ClusterSearch]:
    made = ClusterSearch(tmp_path, shared / "runs", ())
    yield made
    made.stop()


def check(record: SearchRecord | None, trials: int, epochs: int = EPOCHS) -> None:
    """Check that ledger and MLflow hold everything exactly once."""
    assert record is not None
    assert [t.number for t in record.trials] == list(range(trials))
    assert {t.state for t in record.trials} == {"complete"}
    assert all([e.epoch for e in t.epochs] == list(range(1, epochs + 1)) for t in record.trials)
    client = mlflow.MlflowClient(record.tracking_uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`unfreeze.search` = 'digits'", max_results=1000)
    assert [r.info.status for r in runs] == ["FINISHED"] * (trials + 1)


def uninterrupted(record: SearchRecord, number: int, storage: Path) -> list[float]:
    """The training losses of an undisturbed trial."""
    trial = record.trials[number]
    paths = WorkbenchPaths(
        next(storage.glob("digits/backbone-*.keras")), next(storage.glob(".data/*/task.json")).parent
    )
    engine = Engine(threads=1)
    config = TrialConfig(
        trial.method,
        dict(trial.params),
        epochs=EPOCHS,
        seed=trial.seed,
        batch_size=2,
        head_init=trial.head_init,
    )
    engine.begin(TrialRequest("again", config, paths))
    results = [engine.epoch("again") for _ in range(EPOCHS)]
    losses = [result.metrics.train_loss for result in results if result.metrics is not None]
    engine.end("again")
    return losses


@pytest.mark.timeout(1800)
def test_a_trial_whose_node_dies_repeatedly_continues_elsewhere_without_a_retry(
    search: ClusterSearch,
) -> None:
    search.arguments = ("--trials", "2", "--max-concurrent", "2", *LONG, "core")
    with local_cluster() as nodes:
        node = nodes.add(cpus=2)
        search.start(nodes.address)
        for round_ in range(3):  # one more than the retries of a trial
            search.until(lambda least=1 + 3 * round_: search.epochs(0) >= least)  # type: ignore[misc]
            with nodes.paused(node):
                record = search.record()
                assert record is not None
                assert record.trials[0].state == "running"
                spare = nodes.add(cpus=2) if round_ == 2 else None  # another node exists in the last round
            nodes.kill(node, *(("raylet",) if round_ == 0 else ()))
            node = spare or nodes.add(cpus=2)
        assert search.end() == 0, search.log()
    assert search.log().count("nodes: lost") == 3
    assert search.log().count("has joined") == 3
    assert "raylet" not in search.log()
    record = search.record()
    check(record, 2)
    assert record is not None
    assert [e.train_loss for e in record.trials[0].epochs] == pytest.approx(
        uninterrupted(record, 0, search.storage), rel=1e-4
    )
    copies = [p.name for p in Path(os.environ["UNFREEZE_CACHE"], "data").iterdir() if p.is_dir()]
    assert copies == [f"{record.task.digest[:32]}-digits"]


@pytest.mark.timeout(1800)
def test_after_the_loss_of_the_head_the_same_command_finishes_on_another_cluster(
    search: ClusterSearch,
) -> None:
    epochs = EPOCHS // 2
    search.arguments = ("--trials", "3", "--max-concurrent", "2", *LONG, "core", "--epochs", str(epochs))
    with local_cluster() as nodes:
        nodes.add(cpus=2)
        search.start(nodes.address)
        search.until(lambda: search.epochs(0) >= 2)
        began = time.monotonic()
        nodes.kill(nodes.cluster.head_node, "gcs_server", "raylet")
        assert search.end() == 1
        assert time.monotonic() - began < 2 * (LOST_AFTER_SECONDS + GRACE_SECONDS)
        assert "has not answered for" in search.log()
        assert "run the same command again to resume" in search.log()
        assert "Traceback" not in search.log()
    with local_cluster() as nodes:
        nodes.add(cpus=2)
        search.start(nodes.address)
        assert search.end() == 0, search.log()
    check(search.record(), 3, epochs)


@pytest.mark.timeout(1800)
def test_a_search_starts_without_a_fitting_node_if_the_cluster_can_grow(
    search: ClusterSearch,
) -> None:
    search.arguments = ("--trials", "3", "--max-concurrent", "2", "--epochs", "1")
    with local_cluster(env_vars={"RAY_NODE_TYPE_NAME": "headgroup"}) as nodes:  # as KubeRay names its nodes
        search.start(nodes.address)
        search.until(lambda: wanted(nodes.address) == 2)
        assert "none has 1 CPUs and 0 GPUs for a trial yet" in search.log()
        nodes.add(cpus=2)
        assert search.end() == 0, search.log()
    assert "has joined (2 CPUs" in search.log()
    check(search.record(), 3, epochs=1)


def wanted(address: str) -> int:
    """Number of trials that an autoscaler sees waiting for a node."""
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import GetClusterResourceStateReply

    answer = GetClusterResourceStateReply()
    answer.ParseFromString(GcsClient(address).get_cluster_resource_state())
    return len(answer.cluster_resource_state.pending_gang_resource_requests)
