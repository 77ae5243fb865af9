"""The mirror of a ledger in MLflow, tested with a real SQLite store."""

from __future__ import annotations

import base64
import json
import math
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow_store import put_empty_store

from search.records.record import (
    BackboneSummary,
    Interval,
    Outcome,
    SearchRecord,
    State,
    TaskSummary,
    TrialRecord,
)
from search.tracking.experiments import experiment_name
from search.tracking.mirror import Mirror
from search.tracking.stores import default_tracking_uri
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import TrackingError

mlflow = pytest.importorskip("mlflow")
START = datetime(2025, 3, 1, 12, tzinfo=UTC)
TASK = TaskSummary(
    "digits ü", "d" * 64, ("null", "eins"), {"train": 20, "validation": 8, "test": 9}, (8, 8), "digits"
)
BACKBONE = BackboneSummary("print", "default", "b" * 64, (32, 32), 60_000, ("stem", "mid", "top"))
METRICS = ("val_accuracy", "val_loss", "train_loss", "epoch_seconds")


def trial(number: int, state: State = "complete", epochs: int = 3, **changes: object) -> TrialRecord:
    accuracy = 0.5 + 0.01 * number
    curve = tuple(EpochMetrics(e, accuracy + 0.1 * e, 1 / e, 1.5 / e, 0.25) for e in range(1, epochs + 1))
    record = TrialRecord(
        number,
        state,
        "finetune",
        {
            "unfreeze_depth": number % 4,
            "learning_rate": 0.0012,
            "head_units": 0,
            "augmentation_strength": 0.25,
        },
        value=curve[-1].val_accuracy if curve else None,
        epochs=curve,
        started=START + timedelta(seconds=number),
        ended=START + timedelta(seconds=number + 10) if state in ("complete", "pruned", "failed") else None,
        stages={"prefix": 0.5, "suffix": 2.0},
    )
    return replace(record, **changes)


def search(*trials: TrialRecord, name: str = "das 'erste' \"字\"", **changes: object) -> SearchRecord:
    config = {"trials": len(trials), "seed": 0, "method": "finetune", "ledger": "postgresql://me:secret@db/x"}
    record = SearchRecord(
        name, "val_accuracy", "maximize", TASK, BACKBONE, config, trials, requested=len(trials), started=START
    )
    return replace(record, **changes)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for the whole module: creating one takes seconds."""
    folder = tmp_path_factory.mktemp("Läufe von 'heute' #1 字")
    put_empty_store(folder)
    return folder


class Store:
    """One experiment of the store, read with MLflow's own client."""

    def __init__(self, storage: Path, task: str) -> None:
        self.storage, self.task = storage, task
        self.experiment = experiment_name(task)
        self.client = mlflow.MlflowClient(default_tracking_uri(storage))

    def mirror(self) -> Mirror:
        return Mirror(default_tracking_uri(self.storage), experiment=self.experiment, storage=self.storage)

    def runs(self) -> list[object]:
        known = self.client.get_experiment_by_name(self.experiment)
        return list(self.client.search_runs([known.experiment_id], max_results=1000)) if known else []

    def statuses(self) -> list[str]:
        return sorted(run.info.status for run in self.runs())

    def child(self, number: int) -> object:
        (run,) = [r for r in self.runs() if r.data.tags.get("unfreeze.trial") == str(number)]
        return run

    def parent(self) -> object:
        (run,) = [r for r in self.runs() if "mlflow.parentRunId" not in r.data.tags]
        return run

    def history(self, number: int, metric: str = "val_loss") -> list[tuple[int, float]]:
        found = self.client.get_metric_history(self.child(number).info.run_id, metric)
        return [(m.step, m.value) for m in found]


@pytest.fixture
def store(storage: Path, request: pytest.FixtureRequest) -> Store:
    return Store(storage, request.node.name)


def test_contract_of_a_finished_search(store: Store) -> None:
    trials = [
        trial(0),
        trial(1, "pruned", 1, reason="scheduler"),
        trial(2, "failed", 0, reason="crashed", error="Traceback …\nValueError: no"),
    ]
    mirror = store.mirror()
    mirror.sync(search(*trials))
    mirror.close(search(*trials))

    assert store.statuses() == ["FAILED", "FINISHED", "FINISHED", "KILLED"]
    experiment = store.client.get_experiment(mirror.experiment_id)
    assert experiment.name == f"unfreeze/{store.task}"
    parent, child = store.parent(), store.child(0)
    assert parent.info.run_id == mirror.parent_run_id
    assert parent.data.tags["unfreeze.search"] == search().name
    assert child.info.run_id == mirror.run_id(0)
    assert child.data.tags["mlflow.parentRunId"] == mirror.parent_run_id
    assert child.data.tags["unfreeze.search"] == search().name
    assert child.data.tags["unfreeze.trial"] == "0"
    assert child.data.tags["unfreeze.state"] == "complete"
    assert child.data.params == {
        "unfreeze_depth": "0",
        "learning_rate": "0.0012",
        "head_units": "0",
        "augmentation_strength": "0.25",
    }
    for metric in METRICS:
        assert store.history(0, metric) == [(e.epoch, e.metric(metric)) for e in trials[0].epochs]
    assert store.child(1).data.tags["unfreeze.reason"] == "scheduler"
    assert "ValueError: no" in store.child(2).data.tags["unfreeze.error"]


def test_every_run_names_the_dataset_and_its_digest(store: Store) -> None:
    mirror = store.mirror()
    mirror.sync(search(trial(0)))
    for run in store.runs():
        (found,) = run.inputs.dataset_inputs
        assert found.dataset.name == TASK.name
        assert TASK.digest.startswith(found.dataset.digest)
        assert mlflow.data.get_source(found.dataset) is not None
    assert store.parent().data.params["data_digest"] == TASK.digest


def test_names_times_and_descriptions_are_readable(store: Store) -> None:
    mirror = store.mirror()
    mirror.close(search(trial(0), trial(2, "pruned", reason="diverged"), trial(3)))
    assert store.parent().info.run_name == search().name
    assert store.child(2).info.run_name == f"{search().name} #2: top 2 blocks, lr 1.2e-03"
    assert ": head only" in store.child(0).info.run_name
    assert ": all blocks" in store.child(3).info.run_name
    note = store.child(2).data.tags["mlflow.note.content"]
    assert "top 2 blocks" in note
    assert "diverged after 3 epochs" in note
    assert "3 trials" in store.parent().data.tags["mlflow.note.content"]
    info = store.child(2).info
    assert (info.start_time, info.end_time) == (1740830402000, 1740830412000)


def test_following_a_search_duplicates_nothing(store: Store) -> None:
    mirror = store.mirror()
    mirror.sync(search(trial(0, "waiting", 0), trial(1, "waiting", 0)))
    assert store.statuses() == ["RUNNING"]
    for done in range(4):
        mirror.sync(search(trial(0, "running", done), trial(1, "waiting", 0)))
    assert store.statuses() == ["RUNNING", "RUNNING"]
    mirror.sync(search(trial(0), trial(1, "running", 2)))
    assert [step for step, _ in store.history(0)] == [1, 2, 3]
    assert [step for step, _ in store.history(1)] == [1, 2]
    assert store.statuses() == ["FINISHED", "RUNNING", "RUNNING"]


def test_after_close_no_run_is_open_and_a_rerun_continues_the_same_runs(store: Store) -> None:
    before = store.mirror()
    before.sync(search(trial(0), trial(1, "running", 2)))
    before.close(search(trial(0), trial(1, "running", 2)), "KILLED")
    assert store.statuses() == ["FINISHED", "KILLED", "KILLED"]
    assert store.child(1).data.tags["unfreeze.state"] == "interrupted"

    after = store.mirror()
    after.sync(search(trial(0), trial(1, "running", 2)))
    assert store.child(1).info.status == "RUNNING"
    assert store.child(1).data.tags["unfreeze.state"] == "running"
    after.close(search(trial(0), trial(1), trial(2)))
    assert (after.parent_run_id, after.run_id(1)) == (before.parent_run_id, before.run_id(1))
    assert store.statuses() == ["FINISHED"] * 4
    assert [step for step, _ in store.history(1)] == [1, 2, 3]


@pytest.mark.parametrize("state", ["complete", "pruned", "failed"])
def test_a_killed_session_is_resumed_where_it_stopped(store: Store, state: State) -> None:
    store.mirror().sync(search(trial(0), trial(1, "running", 1)))  # and killed: no close
    again = store.mirror()
    again.close(search(trial(0), trial(1, state, 3)))
    assert "RUNNING" not in store.statuses()
    assert len(store.runs()) == 3
    assert [step for step, _ in store.history(1)] == [1, 2, 3]
    assert store.child(1).data.tags["unfreeze.state"] == state


def test_duplicate_runs_of_a_crash_become_one(store: Store) -> None:
    store.mirror().sync(search(trial(0), trial(1, "running", 1)))
    child, parent = store.child(1), store.parent()
    for lost in (child, parent):
        tags = {k: v for k, v in lost.data.tags.items() if k != "mlflow.runName"}
        store.client.create_run(lost.info.experiment_id, tags=tags)
    assert len(store.runs()) == 5
    again = store.mirror()
    again.close(search(trial(0), trial(1)))
    assert len(store.runs()) == 3
    assert (again.parent_run_id, again.run_id(1)) == (parent.info.run_id, child.info.run_id)


def test_a_duplicate_that_appears_during_the_session_is_deleted_at_the_end(store: Store) -> None:
    mirror = store.mirror()
    mirror.sync(search(trial(0, "running", 1)))
    lost = store.child(0)
    tags = {k: v for k, v in lost.data.tags.items() if k != "mlflow.runName"}
    store.client.create_run(lost.info.experiment_id, tags=tags)
    mirror.close(search(trial(0)))
    assert store.statuses() == ["FINISHED", "FINISHED"]


def test_a_run_deleted_by_hand_is_created_again(store: Store) -> None:
    mirror = store.mirror()
    mirror.sync(search(trial(0, "running", 1)))
    store.client.delete_run(mirror.run_id(0))
    with pytest.raises(TrackingError, match="MLflow at sqlite"):
        mirror.sync(search(trial(0)))
    mirror.close(search(trial(0)))
    assert [step for step, _ in store.history(0)] == [1, 2, 3]


def test_another_search_of_the_same_name_is_left_alone(store: Store) -> None:
    store.mirror().close(search(trial(0)))
    later = search(trial(0, params={"learning_rate": 0.5}), started=START + timedelta(days=1))
    store.mirror().close(later)
    parents = [r for r in store.runs() if "mlflow.parentRunId" not in r.data.tags]
    assert len(parents) == 2
    assert len(store.runs()) == 4


def test_non_finite_values_are_stored_as_nan(store: Store) -> None:
    odd = (EpochMetrics(1, math.nan, math.inf, -math.inf, 0.1), EpochMetrics(2, math.nan, math.nan, 1.0, 0.1))
    record = search(trial(0, "pruned", epochs=0, reason="diverged"))
    record = replace(record, trials=(replace(record.trials[0], epochs=odd, value=None),))
    for _ in range(2):
        store.mirror().close(record)
    history = store.history(0)
    assert [step for step, _ in history] == [1, 2]
    assert all(math.isnan(value) for _, value in history)
    assert [v for _, v in store.history(0, "train_loss")][1] == 1.0


def test_a_retried_trial_loses_its_reason_tag(store: Store) -> None:
    mirror = store.mirror()
    mirror.sync(search(trial(0, "failed", 1, reason="crashed", error="boom")))
    mirror.sync(search(trial(0, "running", 1)))
    assert store.child(0).info.status == "RUNNING"
    mirror.sync(search(trial(0)))
    tags = store.child(0).data.tags
    assert tags["unfreeze.state"] == "complete"
    assert "unfreeze.reason" not in tags
    assert "unfreeze.error" not in tags


def test_extending_a_search_keeps_its_params_and_updates_the_number_of_trials(store: Store) -> None:
    first = search(trial(0))
    store.mirror().close(first)
    changed = {**first.config, "trials": 48, "seed": 1}
    store.mirror().close(search(trial(0), trial(1), config=changed))
    parent = store.parent()
    assert parent.data.tags["unfreeze.trials"] == "48"
    assert parent.data.params["seed"] == "0"
    assert parent.data.tags["unfreeze.seed"] == "1"


def test_passwords_are_not_stored(store: Store) -> None:
    mirror = store.mirror()
    mirror.close(search(trial(0, "failed", 1, error="can't reach http://me:secret@host/")))
    seen = [str(run.data.tags) + str(run.data.params) for run in store.runs()]
    assert "secret" not in "".join(seen)
    assert "postgresql://me:***@db/x" in "".join(seen)


def test_best_so_far_is_a_metric_of_the_parent(store: Store) -> None:
    mirror = store.mirror()
    trials = [trial(0), trial(1), trial(2, value=0.1), trial(3)]
    for count in range(1, 5):
        mirror.sync(search(*trials[:count]))
    found = store.client.get_metric_history(mirror.parent_run_id, "best_val_accuracy")
    improvements = [(1, trials[0].value), (2, trials[1].value), (4, trials[3].value)]
    assert [(m.step, m.value) for m in found] == improvements
    assert store.child(1).data.metrics["best_val_accuracy"] == trials[1].value
    assert store.child(1).data.metrics["system/seconds_suffix"] == 2.0


def test_the_winner_alone_has_a_test_accuracy(store: Store) -> None:
    mirror = store.mirror()
    mirror.sync(search(trial(0), trial(1)))
    outcome = Outcome(
        trial=1,
        params={},
        seeds=(0,),
        val_accuracies=(0.9,),
        test_accuracy=Interval(0.91, 0.88, 0.93),
        seed_test_accuracies=(0.91,),
        confusion=((1, 0), (0, 1)),
        gain=Interval(0.024, 0.01, 0.04),
        verdict="helps",
        model_name="unfreeze-digits",
        model_version="3",
    )
    mirror.close(search(trial(0), trial(1), outcome=outcome))
    having = [r.data.tags.get("unfreeze.trial") for r in store.runs() if "test_accuracy" in r.data.metrics]
    assert having == ["1"]
    tags = store.parent().data.tags
    assert (tags["unfreeze.winner"], tags["unfreeze.verdict"]) == ("1", "helps")
    assert tags["unfreeze.model"] == "models:/unfreeze-digits/3"
    assert "transfer gain +2.4 points" in tags["mlflow.note.content"]


def test_artifacts_are_next_to_the_store(store: Store, tmp_path: Path) -> None:
    report = tmp_path / "Bericht ü.html"
    report.write_text("<p>fertig")
    mirror = store.mirror()
    mirror.sync(search())
    mirror.log_artifact(report)
    mirror.log_artifact(report)
    (found,) = store.client.list_artifacts(mirror.parent_run_id)
    assert found.path == report.name
    assert [p.read_text() for p in (store.storage / "mlartifacts").rglob(report.name)] == ["<p>fertig"]


def test_long_histories_and_many_params_go_in_batches(store: Store) -> None:
    many = {f"p{i}": i for i in range(130)}
    mirror = store.mirror()
    mirror.close(search(trial(0, epochs=450, params=many)))
    assert [step for step, _ in store.history(0)] == list(range(1, 451))
    assert len(store.child(0).data.params) == 130


def test_undelivered_counts_trials_with_news(store: Store) -> None:
    mirror = store.mirror()
    mirror.sync(search(trial(0), trial(1, "running", 1), trial(2, "waiting", 0)))
    assert mirror.undelivered(search(trial(0), trial(1, "running", 1), trial(2, "waiting", 0))) == 0
    assert mirror.undelivered(search(trial(0), trial(1), trial(2, "running", 0))) == 2


def test_a_run_of_other_parameters_is_refused(store: Store) -> None:
    store.mirror().sync(search(trial(0)))
    with pytest.raises(TrackingError, match=r"trial 0 has learning_rate=0\.0012, but the ledger has 0\.5"):
        store.mirror().sync(search(trial(0, "running", params={"learning_rate": 0.5})))


def test_a_trial_without_a_run_is_refused(store: Store) -> None:
    mirror = store.mirror()
    with pytest.raises(TrackingError, match="call sync first"):
        _ = mirror.parent_run_id
    mirror.sync(search())
    with pytest.raises(TrackingError, match="received 7"):
        mirror.run_id(7)


def test_a_deleted_experiment_is_reported_with_the_command_that_restores_it(store: Store) -> None:
    mirror = store.mirror()
    store.client.delete_experiment(mirror.experiment_id)
    with pytest.raises(TrackingError, match=f"restore --experiment-id {mirror.experiment_id}"):
        store.mirror()


def test_a_sync_without_news_writes_nothing(store: Store) -> None:
    mirror = store.mirror()
    done = search(*(trial(n, epochs=1) for n in range(5)))
    mirror.sync(done)
    before = (store.storage / "mlflow.db").read_bytes()
    mirror.sync(done)
    assert (store.storage / "mlflow.db").read_bytes() == before


def test_the_experiment_has_a_description_and_views(store: Store) -> None:
    mirror = store.mirror()
    mirror.sync(search(trial(0, "running", 1)))
    mirror.close(search(trial(0), trial(1, "pruned", 1, reason="scheduler")))
    tags = store.client.get_experiment(mirror.experiment_id).tags
    assert tags["mlflow.note.content"].startswith("Searches on `digits ü`, made by unfreeze")
    assert tags["mlflow.experiment.primaryMetric.name"] == "val_accuracy"
    view = saved_view(tags, "unfreeze-trials")
    assert view["searchFilter"] == "tags.`unfreeze.kind` = 'trial'"
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`best_val_accuracy`", False)
    assert {f"params.`{name}`" for name in trial(0).params} <= set(view["selectedColumns"])
    found = store.client.search_runs(
        [mirror.experiment_id], view["searchFilter"], order_by=[f"{view['orderByKey']} DESC"]
    )
    assert [run.data.tags["unfreeze.trial"] for run in found] == ["0", "1"]
    assert saved_view(tags, "unfreeze-searches")["searchFilter"] == ""


def test_views_follow_what_searches_vary_until_a_person_changes_them(store: Store) -> None:
    mirror = store.mirror()
    mirror.close(search(trial(0)))
    mirror.close(search(trial(0, params={"dropout": 0.5}), metric="val_loss", direction="minimize"))
    tags = store.client.get_experiment(mirror.experiment_id).tags
    view = saved_view(tags, "unfreeze-trials")
    assert "params.`dropout`" in view["selectedColumns"]
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`best_val_loss`", True)

    mine = json.dumps({"name": "mine", "createdAt": 1, "updatedAt": 2, "state": "{}"})
    store.client.set_experiment_tag(mirror.experiment_id, "mlflow.sharedViewState.unfreeze-trials", mine)
    store.client.set_experiment_tag(mirror.experiment_id, "mlflow.note.content", "our plants")
    mirror.close(search(trial(0)))
    tags = store.client.get_experiment(mirror.experiment_id).tags
    assert tags["mlflow.sharedViewState.unfreeze-trials"] == mine
    assert tags["mlflow.note.content"] == "our plants"


def saved_view(tags: dict[str, str], key: str) -> dict[str, Any]:
    """Read a view as MLflow's UI does."""
    envelope = json.loads(tags[f"mlflow.sharedViewState.{key}"])
    packed = envelope["state"].removeprefix("deflate;")
    return dict(json.loads(zlib.decompress(base64.b64decode(packed))))
