"""Real servers on this machine: ``mlflow server``, killed during a search, and ``mlflow models serve``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from mlflow_service import Server, free_port, wait_for
from simultaneous import at_once

from search.records.record import BackboneSummary, Interval, Outcome, SearchRecord, TaskSummary, TrialRecord
from search.tracking.delivery import Delivery
from search.tracking.mirror import Mirror
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import TrackingError

mlflow = pytest.importorskip("mlflow")
pytestmark = pytest.mark.slow

TASK = TaskSummary("digits", "d" * 64, ("null", "eins"), {"train": 20}, (8, 8), "digits")
BACKBONE = BackboneSummary("print", "default", "b" * 64, (32, 32), 60_000, ("stem", "top"))
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3)).astype("uint8")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("Server ü"))
    server.start()
    yield server
    server.kill()


def search(name: str, *trials: TrialRecord) -> SearchRecord:
    started = datetime(2025, 3, 1, tzinfo=UTC)
    return SearchRecord(
        name, "val_accuracy", "maximize", TASK, BACKBONE, {"seed": 0}, trials, len(trials), started=started
    )


def trial(number: int, epochs: int, state: str = "running") -> TrialRecord:
    curve = tuple(EpochMetrics(e, 0.1 * e, 1 / e, 1 / e, 0.1) for e in range(1, epochs + 1))
    params = {"learning_rate": 0.01, "unfreeze_depth": 1}
    begun = datetime(2025, 3, 1, tzinfo=UTC)
    record = TrialRecord(number, "running", "finetune", params, 0.1, curve, started=begun)
    return replace(record, state=state, ended=None if state == "running" else begun)


def runs_of(server: Server, task: str) -> list[object]:
    client = mlflow.MlflowClient(server.uri)
    known = client.get_experiment_by_name(f"unfreeze/{task}")
    return list(client.search_runs([known.experiment_id], max_results=1000))


def delivery_to(server: Server, task: str, told: list[str], storage: Path) -> Delivery:
    return Delivery(lambda: Mirror(server.uri, experiment=f"unfreeze/{task}", storage=storage), told.append)


def test_a_server_that_dies_during_a_search_receives_everything_once(server: Server, tmp_path: Path) -> None:
    told: list[str] = []
    delivery = delivery_to(server, "dies", told, tmp_path)
    done: list[TrialRecord] = []
    for number in range(12):
        for epoch in range(1, 4):
            delivery.publish(search("dies", *done, trial(number, epoch)))
            time.sleep(0.1)
        done.append(trial(number, 3, "complete"))
        if number == 4:
            server.kill()
        if number == 8:
            server.start()
    delivery.finish(search("dies", *done), timeout=60)

    assert told
    assert "127.0.0.1" in told[0]
    runs = runs_of(server, "dies")
    assert len(runs) == 13
    assert {run.info.status for run in runs} == {"FINISHED"}
    client = mlflow.MlflowClient(server.uri)
    for run in runs:
        if "unfreeze.trial" in run.data.tags:
            steps = [m.step for m in client.get_metric_history(run.info.run_id, "val_loss")]
            assert steps == [1, 2, 3]


def test_a_server_that_is_unreachable_at_the_end_receives_the_rest_next_time(
    server: Server, tmp_path: Path
) -> None:
    told: list[str] = []
    whole = search("away", *(trial(n, 2, "complete") for n in range(3)))
    delivery = delivery_to(server, "away", told, tmp_path)
    delivery.publish(search("away", trial(0, 1)))
    assert delivery.call(lambda mirror: mirror.run_id(0))
    server.kill()
    try:
        with pytest.raises(TrackingError, match=r"running there\. 3 of 3 trials.*run the same command again"):
            delivery.finish(whole, timeout=3)
    finally:
        server.start()
    delivery_to(server, "away", told, tmp_path).finish(whole)
    runs = runs_of(server, "away")
    assert sorted(run.info.status for run in runs) == ["FINISHED"] * 4


def test_artifacts_go_through_the_server(server: Server, tmp_path: Path) -> None:
    report = tmp_path / "Bericht ü.html"
    report.write_text("<p>fertig")
    delivery = delivery_to(server, "artifacts", [], tmp_path)
    delivery.finish(search("artifacts", trial(0, 1, "complete")), artifacts=(report,))
    assert [p.read_text() for p in (server.folder / "artifacts").rglob(report.name)] == ["<p>fertig"]
    assert not (tmp_path / "mlartifacts").exists()


PROMOTE = """
import sys
from search.registry import promote
from trainables.errors import TrackingError
print("ready", flush=True)
sys.stdin.readline()
try:
    print("champion", promote("unfreeze-race", sys.argv[1], force=True).champion.version)
except TrackingError as error:
    print(error)
"""


def small_classifier() -> object:
    keras = pytest.importorskip("keras")
    images = keras.Input((None, None, 3), dtype="uint8")
    x = keras.layers.Resizing(4, 4)(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.Dense(2)(keras.layers.Flatten()(x))
    return keras.Model(images, keras.layers.Softmax()(x))


@pytest.fixture(scope="module")
def registered(server: Server, tmp_path_factory: pytest.TempPathFactory) -> object:
    """Register a model through the server; return it with the Keras model itself."""
    from search.registry import register

    model = small_classifier()
    outcome = Outcome(0, {}, (0,), (0.9,), Interval(0.9, 0.8, 1.0), (0.9,), ((45, 5), (5, 45)))
    record = replace(search("model", trial(0, 1, "complete")), outcome=outcome)
    mirror = Mirror(server.uri, experiment="unfreeze/model", storage=tmp_path_factory.mktemp("unused"))
    mirror.close(record)
    for _ in range(2):
        version = register(
            record,
            model,
            run_id=mirror.run_id(0),
            examples=IMAGES,
            model_name="unfreeze-digits",
            tracking_uri=server.uri,
        )
    assert version.version == "1"
    return model


def test_the_registry_of_a_server(server: Server, registered: object, tmp_path: Path) -> None:
    from search.registry import class_names, download_backbone, promote

    assert promote("unfreeze-digits", server.uri, force=True).champion.version == "1"
    assert class_names("models:/unfreeze-digits@champion", server.uri) == TASK.classes
    assert download_backbone("models:/unfreeze-digits@champion", tmp_path, server.uri).is_file()


def test_of_two_simultaneous_promotions_over_http_one_succeeds(server: Server, registered: object) -> None:
    client = mlflow.MlflowClient(server.uri)
    version = client.get_model_version_by_alias("unfreeze-digits", "challenger")
    client.create_registered_model("unfreeze-race")
    client.create_model_version(
        "unfreeze-race", version.source, version.run_id, model_id=version.source.rpartition("/")[2]
    )
    client.set_registered_model_alias("unfreeze-race", "challenger", "1")
    command = [sys.executable, "-c", PROMOTE, server.uri]
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [told for _, told in at_once(*both)]
    assert said.count("champion 1") == 1
    (told,) = (words for words in said if words != "champion 1")
    assert "version 1 is now champion" in told or "is the champion already" in told
    tags = client.get_registered_model("unfreeze-race").tags
    assert sum(key.startswith("unfreeze.event.") for key in tags) == 1
    assert not any(key.startswith("unfreeze.turn.") for key in tags)


def test_the_registered_model_serves_over_http(server: Server, registered: object) -> None:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/unfreeze-digits@challenger"]
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server.uri, "PATH": path}
    with (server.folder / "serve.log").open("ab") as log:
        serving = subprocess.Popen(
            [*command, *options], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server.folder / "serve.log")
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"inputs": IMAGES.tolist()}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            answer = json.loads(reply.read())["predictions"]
    finally:
        os.killpg(serving.pid, signal.SIGKILL)
        serving.wait()
    np.testing.assert_allclose(answer, registered.predict(IMAGES, verbose=0), rtol=1e-5)  # type: ignore[attr-defined]
