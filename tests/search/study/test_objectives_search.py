"""Searches with several objectives, small, on real Ray, Optuna and MLflow."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import keras
import mlflow
import optuna
import pyarrow.parquet as pq
import pytest
from search_command import SearchCommand

from search import SearchConfig, SearchResult, cli, run_search
from search.fault_injection import KILL_AT_VARIABLE
from search.ledger.ledger import sqlite_url
from search.ledger.reader import read_record
from search.records.predictions import read_predictions
from trainables.errors import LedgerError

FIRST = (
    {"unfreeze_depth": 4, "learning_rate": 0.01, "head_units": 0, "augmentation_strength": 0.0},
    {"unfreeze_depth": 2, "learning_rate": 0.001, "head_units": 256, "augmentation_strength": 0.0},
    {"unfreeze_depth": 4, "learning_rate": 0.01, "head_units": 256, "augmentation_strength": 0.0},
)
"""A small model that is trained badly, a large one that is trained well, and a large one that is trained badly; the
scheduler stops the last, or the second dominates it.
"""

BETTER = {"unfreeze_depth": 2, "learning_rate": 0.005, "head_units": 0, "augmentation_strength": 0.0}
"""A small model that is trained well: it dominates the first."""

OBJECTIVES = ("val_accuracy", "parameters")


def settings(folder: Path, configurations: list[dict[str, Any]], **changes: Any) -> SearchConfig:
    (folder / "first.jsonl").write_text("".join(json.dumps(c) + "\n" for c in configurations))
    given = {"epochs": 3, "baseline_trials": 0, "confirm_seeds": 2, "max_concurrent": 1, "probe": "off"}
    given |= {"enqueue": str(folder / "first.jsonl"), "trials": len(configurations), "objective": OBJECTIVES}
    return SearchConfig(storage=str(folder / "runs"), **{**given, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("Ziele & 'more'")


@pytest.fixture(scope="module")
def found(folder: Path, one_ray: None) -> SearchResult:
    return run_search(settings(folder, list(FIRST)))


def runs(result: SearchResult) -> dict[str, Any]:
    """The MLflow runs of a search by trial; the parent run has the empty text as its key."""
    client = mlflow.MlflowClient(result.record.tracking_uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    known = client.search_runs(experiments, "tags.`unfreeze.search` = 'digits'")
    return {run.data.tags.get("unfreeze.trial", ""): run for run in known}


def registered(result: SearchResult) -> dict[str, Any]:
    """Model versions by trial."""
    client = mlflow.MlflowClient(result.record.tracking_uri)
    known = client.search_model_versions("name = 'unfreeze-digits'")
    return {version.tags["unfreeze.trial"]: version for version in known}


@pytest.mark.slow
def test_ledger_files_status_and_report_show_the_same_front(
    found: SearchResult, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    front = [trial.number for trial in found.front]
    assert front == [1, 0]
    assert found.best.number == 1
    study = optuna.load_study(
        study_name="digits", storage=sqlite_url(folder / "runs" / "digits" / "ledger.db")
    )
    assert {t.number for t in study.best_trials} == set(front)
    best = json.loads((folder / "runs" / "digits" / "best.json").read_text())
    assert best["objectives"] == {"val_accuracy": "maximize", "parameters": "minimize"}
    assert [point["trial"] for point in best["front"]] == front
    assert [point["values"] for point in best["front"]] == [dict(t.objectives) for t in found.front]
    table = pq.read_table(folder / "runs" / "digits" / "trials.parquet").to_pydict()
    assert table["front"] == [n in front for n in table["number"]]
    assert table["parameters"] == [t.objectives["parameters"] for t in found.record.trials]
    assert table["best_val_accuracy"] == table["value"]
    assert cli.main(["status", "digits", "--storage", str(folder / "runs")]) == 0
    shown = capsys.readouterr().out
    assert "(trial 1), version 2" in shown
    assert "(trial 0), version 1" in shown
    assert cli.main(["status", "digits", "--storage", str(folder / "runs"), "--json"]) == 0
    assert [p["trial"] for p in json.loads(capsys.readouterr().out)["front"]] == front
    assert read_record("digits", str(folder / "runs")).front == found.record.front
    report = found.report_path.read_text()
    assert "2 points to choose from" in report
    assert "in one pass" in report


@pytest.mark.slow
def test_mlflow_has_the_objectives_of_trials_and_the_parent_run_has_the_front(found: SearchResult) -> None:
    known = runs(found)
    assert known[""].data.tags["unfreeze.front"] == "1, 0"
    assert known[""].data.params["objective"] == '["val_accuracy", "parameters"]'
    for trial in found.record.trials:
        data = known[str(trial.number)].data
        assert data.metrics["parameters"] == trial.objectives["parameters"]
        assert data.tags["unfreeze.front"] == str(trial.number in (0, 1)).lower()
    assert known["1"].data.tags["unfreeze.winner"] == known["0"].data.tags["unfreeze.confirmed"] == "true"
    assert {number for number, run in known.items() if "test_accuracy" in run.data.metrics} == {"0", "1"}
    assert "It is a point of the Pareto front" in known["0"].data.tags["mlflow.note.content"]


@pytest.mark.slow
def test_each_confirmed_point_is_a_model_version_measured_on_the_same_images(
    found: SearchResult, folder: Path
) -> None:
    record = found.record
    outcomes = [o for o in (record.outcome, *record.alternatives) if o is not None]
    assert [(o.trial, o.model_version, len(o.seeds)) for o in outcomes] == [(1, "2", 2), (0, "1", 2)]
    winner = folder / "runs" / "digits" / "winner"
    answers = [read_predictions(winner / o.answers_file) for o in outcomes]
    assert answers[0].digest == answers[1].digest
    assert [a.correct[a.chosen].mean() for a in answers] == pytest.approx(
        [o.test_accuracy.estimate for o in outcomes]
    )
    for outcome in outcomes:
        model = keras.saving.load_model(winner / outcome.model_file, compile=False, safe_mode=True)
        trial = record.trials[outcome.trial]
        assert model.count_params() == trial.objectives["parameters"]
        assert outcome.footprint is not None
        assert outcome.footprint.parameters == trial.objectives["parameters"]
    versions = registered(found)
    assert {trial: str(version.version) for trial, version in versions.items()} == {"0": "1", "1": "2"}
    client = mlflow.MlflowClient(record.tracking_uri)
    assert str(client.get_model_version_by_alias("unfreeze-digits", "challenger").version) == "2"
    assert json.loads(versions["0"].tags["unfreeze.objectives"]) == dict(record.trials[0].objectives)


@pytest.mark.slow
def test_the_same_command_repeats_no_work(found: SearchResult, folder: Path) -> None:
    before = runs(found)
    again = run_search(settings(folder, list(FIRST)))
    assert again.record.trials == found.record.trials
    assert (again.record.outcome, again.record.alternatives) == (
        found.record.outcome,
        found.record.alternatives,
    )
    after = runs(again)
    assert {n: run.info.run_id for n, run in after.items()} == {
        n: run.info.run_id for n, run in before.items()
    }
    assert len(registered(again)) == 2


@pytest.mark.slow
def test_one_objective_under_the_name_of_a_search_with_two_is_refused(
    found: SearchResult, folder: Path
) -> None:
    with pytest.raises(
        LedgerError, match=r"objective: expected \['val_accuracy', 'parameters'\], received none"
    ):
        run_search(settings(folder, list(FIRST), objective=None))
    assert read_record("digits", str(folder / "runs")).objectives == OBJECTIVES


@pytest.mark.slow
def test_a_longer_search_confirms_the_new_front_and_promotion_asks_which_point(
    found: SearchResult, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = run_search(settings(folder, [*FIRST, BETTER]))
    front = [trial.number for trial in longer.front]
    assert front in ([1, 3], [3])
    assert [o.trial for o in (longer.record.outcome, *longer.record.alternatives) if o] == front
    versions = registered(longer)
    assert set(versions) == {"0", "1", "3"}
    assert runs(longer)["0"].data.tags["unfreeze.front"] == "false"
    assert "unfreeze.confirmed" not in runs(longer)["0"].data.tags
    client = mlflow.MlflowClient(longer.record.tracking_uri)
    challenger = client.get_model_version_by_alias("unfreeze-digits", "challenger")
    assert challenger.tags["unfreeze.trial"] == str(front[0])
    place = ["--storage", str(folder / "runs")]
    if len(front) > 1:
        assert cli.main(["promote", "unfreeze-digits", *place]) == 2
        assert "--trial: expected one of the points" in capsys.readouterr().err
    assert cli.main(["promote", "unfreeze-digits", "--trial", "0", *place]) == 2  # dominated now
    assert cli.main(["promote", "unfreeze-digits", "--trial", "3", "--force", *place]) == 0
    assert client.get_model_version_by_alias("unfreeze-digits", "champion").version == versions["3"].version
    capsys.readouterr()
    assert cli.main(["history", "unfreeze-digits", "--json", *place]) == 0
    assert [event["trial"] for event in json.loads(capsys.readouterr().out)] == [3]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_search_killed_during_trials_and_between_two_versions_is_completed(tmp_path: Path) -> None:
    (tmp_path / "first.jsonl").write_text("".join(json.dumps(c) + "\n" for c in FIRST))
    arguments = [
        "--trials",
        "3",
        "--epochs",
        "3",
        "--enqueue",
        str(tmp_path / "first.jsonl"),
        "--max-concurrent",
        "1",
    ]
    for name in OBJECTIVES:
        arguments += ["--objective", name]
    command = SearchCommand(tmp_path, tuple(arguments))
    for place in ("run-delivered", "version-created"):
        command.environment = {KILL_AT_VARIABLE: place}
        assert command.start().wait(400) == -signal.SIGKILL, command.log()
    command.environment = {}
    command.run()
    record = command.record()
    assert record is not None
    assert [t.number for t in record.trials] == [0, 1, 2]
    assert [t.number for t in record.front] == [1, 0]
    client = mlflow.MlflowClient(record.tracking_uri)
    versions = client.search_model_versions("name = 'unfreeze-digits'")
    assert sorted(v.tags["unfreeze.trial"] for v in versions) == ["0", "1"]
    assert len({v.tags["unfreeze.front"] for v in versions}) == 1
    assert client.get_model_version_by_alias("unfreeze-digits", "challenger").tags["unfreeze.trial"] == "1"
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], "")
    assert sorted(run.info.status for run in runs if "unfreeze.search" in run.data.tags)[0] == "FINISHED"
    assert len(runs) == 4
    assert os.environ.get(KILL_AT_VARIABLE) is None
