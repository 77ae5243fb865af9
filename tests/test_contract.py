"""Test the contract: the commands, options, parameters, metrics, tags, aliases and files that users rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow.parquet as pq
import pytest

from search import SearchConfig, SearchResult, run_search
from search.ledger.ledger import sqlite_url
from search.tracking.client import use_store

TRIALS, BASELINE, EPOCHS = 4, 2, 2

OPTIONS = """
--data --backbone --weights --input-size --name --trials --epochs --method --space --enqueue --sampler --scheduler
--time-budget --storage --ledger --tracking-uri --model-name --no-register --seed --max-concurrent --cpus-per-trial
--gpus-per-trial --address --metric --skip-bad-images --patience --baseline-trials --quiet --json --verbose
""".split()


class ContractSearch:
    """One small search that was run through the Python API, and its MLflow store."""

    def __init__(self, storage: Path) -> None:
        from mlflow import MlflowClient

        self.storage = storage
        self.config = SearchConfig(
            storage=str(storage),
            trials=TRIALS,
            baseline_trials=BASELINE,
            epochs=EPOCHS,
            confirm_seeds=2,
            finalists=2,
            seed=1,
        )
        self.result: SearchResult = run_search(self.config)
        self.uri = self.result.record.tracking_uri
        self.client = MlflowClient(self.uri, self.uri)

    def runs(self, search: str) -> list[Any]:
        """All runs of a search, parent and children."""
        experiments = [e.experiment_id for e in self.client.search_experiments()]
        return list(
            self.client.search_runs(experiments, f"tags.`unfreeze.search` = '{search}'", max_results=1000)
        )

    def children(self) -> list[Any]:
        found = [r for r in self.runs("digits") if "mlflow.parentRunId" in r.data.tags]
        return sorted(found, key=lambda r: int(r.data.tags["unfreeze.trial"]))

    def parent(self) -> Any:
        (parent,) = [r for r in self.runs("digits") if "mlflow.parentRunId" not in r.data.tags]
        return parent


@pytest.fixture(scope="module")
def ran(weird_folder: Path) -> Iterator[ContractSearch]:
    found = ContractSearch(weird_folder / "contract runs")
    with use_store(found.uri):
        yield found


def unfreeze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "search.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    "search status report promote rollback history predict score doctor ui backbones logs".split(),
)
def test_every_command_has_help(command: str) -> None:
    assert unfreeze(command, "--help").returncode == 0


def test_options_of_search() -> None:
    words = unfreeze("search", "--help").stdout
    for option in OPTIONS:
        assert option in words, option


def test_options_of_score() -> None:
    words = unfreeze("score", "--help").stdout
    for option in "--data --backbone --weights --input-size --source --storage --cache --json".split():
        assert option in words, option


def test_wrong_usage_exits_with_2_and_names_the_option() -> None:
    wrong = unfreeze("search", "--trials", "many")
    assert wrong.returncode == 2
    assert "--trials" in wrong.stderr
    assert "many" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_search_space_has_the_contract_s_names() -> None:
    from search.config.space import core_space, full_space

    core = ["unfreeze_depth", "learning_rate", "head_units", "augmentation_strength"]
    assert list(core_space(4).ranges) == core
    full = {"weight_decay", "dropout", "label_smoothing", "backbone_lr_ratio", "horizontal_flip"}
    full |= {"head_init", "l2sp", "layer_lr_decay", "gradual_unfreezing"}  # later additions to the full space
    assert set(full_space(4).ranges) == full | set(core)


def test_storage_holds_what_the_contract_says(ran: ContractSearch) -> None:
    folder = ran.storage / "digits"
    for name in ("ledger.db", "trials.parquet", "best.json", "report.html"):
        assert (folder / name).is_file(), name
    assert (ran.storage / "mlflow.db").is_file()
    assert ran.result.report_path == folder / "report.html"
    assert json.loads((folder / "best.json").read_text())["trial"] == ran.result.best.number
    assert pq.read_table(folder / "trials.parquet").num_rows == TRIALS
    assert ran.result.trials.num_rows == TRIALS


def test_ledger_is_an_optuna_study_of_exactly_the_trials(ran: ContractSearch) -> None:
    study = optuna.load_study(study_name="digits", storage=sqlite_url(ran.storage / "digits" / "ledger.db"))
    assert len(study.trials) == TRIALS
    assert all(t.state.is_finished() for t in study.trials)
    assert [t.params for t in study.trials] == [dict(t.params) for t in ran.result.record.trials]


def test_runs_are_trials_plus_one_and_none_running(ran: ContractSearch) -> None:
    for search, trials in (("digits", TRIALS), ("digits-scratch", BASELINE)):
        runs = ran.runs(search)
        assert len(runs) == trials + 1
        assert {r.info.status for r in runs} <= {"FINISHED", "KILLED", "FAILED"}
    assert len(ran.client.search_experiments(filter_string="name = 'unfreeze/digits'")) == 1


def test_the_search_s_run_shows_its_report_and_plots(ran: ContractSearch) -> None:
    run_id = ran.parent().info.run_id
    shown = {artifact.path for artifact in ran.client.list_artifacts(run_id)}
    assert shown >= {"trials.parquet", "best.json", "report.html", "report.md", "plots"}
    plots = {Path(artifact.path).stem for artifact in ran.client.list_artifacts(run_id, "plots")}
    assert plots >= {"history", "anytime", "curves", "landscape", "parallel", "confusion", "calibration"}


def test_children_carry_parameters_metrics_tags_and_status(ran: ContractSearch) -> None:
    parent = ran.parent().info.run_id
    children = ran.children()
    assert [int(c.data.tags["unfreeze.trial"]) for c in children] == list(range(TRIALS))
    for child, trial in zip(children, ran.result.record.trials, strict=True):
        assert child.data.tags["mlflow.parentRunId"] == parent
        assert child.data.tags["unfreeze.search"] == "digits"
        assert child.data.tags["unfreeze.state"] == trial.state
        assert (
            child.info.status == {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}[trial.state]
        )
        for name, value in trial.params.items():
            assert float(child.data.params[name]) == float(value)
        for metric in ("val_accuracy", "val_loss", "train_loss", "epoch_seconds"):
            history = ran.client.get_metric_history(child.info.run_id, metric)
            assert [m.step for m in history] == [e.epoch for e in trial.epochs]
            assert [m.value for m in history] == [e.metric(metric) for e in trial.epochs]
        (data,) = child.inputs.dataset_inputs
        assert data.dataset.digest == ran.result.record.task.digest[: len(data.dataset.digest)]


def test_test_accuracy_exists_on_the_winner_alone(ran: ContractSearch) -> None:
    measured = [c for c in ran.children() if "test_accuracy" in c.data.metrics]
    assert [int(c.data.tags["unfreeze.trial"]) for c in measured] == [ran.result.best.number]
    outcome = ran.result.record.outcome
    assert outcome is not None
    assert measured[0].data.metrics["test_accuracy"] == outcome.headline_accuracy.estimate
    assert measured[0].data.metrics["registered_test_accuracy"] == outcome.test_accuracy.estimate
    assert all("test_accuracy" not in r.data.metrics for r in ran.runs("digits-scratch"))


def test_winner_is_registered_as_challenger_with_its_lineage(ran: ContractSearch) -> None:
    version = ran.client.get_model_version_by_alias("unfreeze-digits", "challenger")
    assert ran.result.model_uri == f"models:/unfreeze-digits/{version.version}"
    assert len(ran.client.search_model_versions("name = 'unfreeze-digits'")) == 1
    record = ran.result.record
    assert version.tags["unfreeze.search"] == "digits"
    assert version.tags["unfreeze.trial"] == str(ran.result.best.number)
    assert version.tags["unfreeze.data_digest"] == record.task.digest
    assert version.tags["unfreeze.backbone_digest"] == record.backbone.digest


def test_registered_model_takes_raw_images_in_keras_and_pyfunc(ran: ContractSearch) -> None:
    import mlflow

    from search.registry import class_names
    from trainables.data.task import open_task

    (folder,) = (ran.storage / ".data").glob("digits-*")
    split = open_task(folder).split("test")
    images = np.ascontiguousarray(split.images[:64])
    uri = "models:/unfreeze-digits@challenger"
    by_keras = np.asarray(mlflow.keras.load_model(uri)(images))
    by_pyfunc = np.asarray(mlflow.pyfunc.load_model(uri).predict(images))
    assert by_keras.shape == (64, 10)
    np.testing.assert_allclose(by_keras.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(by_keras, by_pyfunc, atol=1e-6)
    assert list(class_names(uri)) == [str(d) for d in range(10)]


def test_a_version_takes_image_files_and_its_search_shows_curves(
    ran: ContractSearch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow
    from PIL import Image

    from search.cli import main

    pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 3)).astype("uint8")
    file = tmp_path / "ü.png"
    Image.fromarray(pixels).save(file)
    served = mlflow.pyfunc.load_model("models:/unfreeze-digits@challenger/images")
    by_keras = mlflow.keras.load_model("models:/unfreeze-digits@challenger").predict(pixels[None], verbose=0)
    np.testing.assert_allclose(served.predict(np.array([file.read_bytes()], object)), by_keras, atol=1e-5)
    assert main(["curves", "digits", "--storage", str(ran.storage)]) == 0
    curves = Path(capsys.readouterr().out.strip())
    assert len(list(curves.glob("*/events.out.tfevents.*"))) == len(ran.result.record.trials)


@pytest.mark.slow
@pytest.mark.usefixtures("ran", "one_ray")
def test_the_same_command_again_changes_nothing(ran: ContractSearch) -> None:
    before = {r.info.run_id: r.info.end_time for r in ran.runs("digits")}
    again = run_search(ran.config)
    assert again.model_uri == ran.result.model_uri
    assert again.record.trials == ran.result.record.trials
    assert again.record.outcome == ran.result.record.outcome
    assert {r.info.run_id for r in ran.runs("digits")} == set(before)
    assert len(ran.client.search_model_versions("name = 'unfreeze-digits'")) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("ran", "one_ray")
def test_more_trials_extend_the_search(ran: ContractSearch) -> None:
    extended = run_search(ran.config.replace(trials=TRIALS + 2))
    assert extended.record.trials[:TRIALS] == ran.result.record.trials
    assert len(extended.record.trials) == TRIALS + 2
    assert len(ran.runs("digits")) == TRIALS + 3
    assert all(r.info.status != "RUNNING" for r in ran.runs("digits"))
