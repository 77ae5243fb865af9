"""Whole searches, small, on real Ray, Optuna and MLflow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from search import SearchConfig, SearchResult, cli, run_search
from search.ledger.reader import read_record
from search.records.record import TrialRecord
from trainables.errors import DataError, LedgerError, SearchError, UsageError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]

SMALL: dict[str, Any] = {
    "trials": 2,
    "epochs": 1,
    "baseline_trials": 0,
    "confirm_seeds": 1,
    "max_concurrent": 1,
    "probe": "off",
    "finalists": 1,
    "refit": False,
}


def digit_images(count: int, classes: int = 3) -> Iterator[tuple[int, Image.Image]]:
    """Real handwriting: ``count`` 8×8 digits of each of the first classes."""
    data = load_digits()
    for digit in range(classes):
        for pixels in data.images[data.target == digit][:count]:
            yield digit, Image.fromarray((pixels * 255 / 16).astype(np.uint8)).resize((20, 24))


NAMES = ("zéro & co", "один", "zwei 字")


def image_folder(root: Path, count: int = 16) -> Path:
    for index, (digit, image) in enumerate(digit_images(count)):
        folder = root / NAMES[digit]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"bild {index} ü.png")
    return root


def encoded(image: Image.Image) -> bytes:
    import io

    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


ENQUEUED: list[dict[str, float]] = [
    {"unfreeze_depth": 0, "learning_rate": 0.01, "head_units": 64, "augmentation_strength": 0.0},
    {"unfreeze_depth": 4, "learning_rate": 0.001, "head_units": 0, "augmentation_strength": 0.5},
]


@pytest.fixture(scope="module")
def enqueued(weird_folder: Path) -> tuple[SearchConfig, SearchResult]:
    """A search of two enqueued configurations on a folder of images."""
    (weird_folder / "first.jsonl").write_text("\n".join(json.dumps(wanted) for wanted in ENQUEUED))
    files = {"storage": str(weird_folder / "runs a"), "enqueue": str(weird_folder / "first.jsonl")}
    config = SearchConfig(data=str(image_folder(weird_folder / "my photos ü")), **files, **SMALL)
    return config, run_search(config)


def test_an_image_folder_may_have_unusual_names(
    enqueued: tuple[SearchConfig, SearchResult], weird_folder: Path
) -> None:
    _, result = enqueued
    assert sorted(result.record.task.classes) == sorted(NAMES)
    assert result.record.task.counts == {"train": 30, "validation": 9, "test": 9}
    assert result.model_uri == "models:/unfreeze-my photos ü/1"
    assert result.report_path.stat().st_size > 10_000
    assert len(list((weird_folder / "runs a").glob("*/checkpoints/*"))) <= result.record.config["keep_best"]
    from search.registry import class_names, judge

    uri = result.record.tracking_uri
    assert class_names(result.model_uri, uri) == result.record.task.classes
    outcome = result.record.outcome
    # By its number: with 9 test images a version is hardly ever good enough to be proposed.
    judgement = judge("unfreeze-my photos ü", uri, version=1).judgement
    assert outcome is not None
    assert (judgement.images, judgement.accuracy) == (9, pytest.approx(outcome.seed_test_accuracies[0]))
    assert judgement.footprints[0] is not None
    assert judgement.footprints[0].file_bytes > 10_000


@pytest.fixture(scope="module")
def parquet_and_keras_file(weird_folder: Path) -> SearchResult:
    """One search with data and a backbone from files: a Parquet file of Hugging Face's form, another architecture."""
    import keras

    rows = [{"bytes": encoded(image), "path": None} for _, image in digit_images(16)]
    labels = [digit for digit, _ in digit_images(16)]
    data, backbone = weird_folder / "handwriting 字.parquet", weird_folder / "other ü.keras"
    schema = {"info": {"features": {"label": {"names": list(NAMES), "_type": "ClassLabel"}}}}
    table = pa.table({"image": rows, "label": labels})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(schema)}), data)
    inputs = keras.Input((40, 40, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    for filters in (8, 16):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same")(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.Flatten()(x)
    keras.Model(inputs, keras.layers.Dense(7, activation="softmax")(x)).save(backbone)
    storage = str(weird_folder / "runs b")
    return run_search(SearchConfig(data=str(data), backbone=str(backbone), storage=storage, **SMALL))


def test_a_parquet_file_in_the_format_of_hugging_face_can_be_searched(
    parquet_and_keras_file: SearchResult,
) -> None:
    record = parquet_and_keras_file.record
    assert record.task.classes == NAMES
    assert record.outcome is not None
    assert np.sum(record.outcome.confusion) == 9


def test_a_keras_file_of_any_architecture_can_be_the_backbone(parquet_and_keras_file: SearchResult) -> None:
    record = parquet_and_keras_file.record
    assert record.backbone.input_size == (40, 40)
    assert len(record.backbone.blocks) == 2
    assert max(int(t.params["unfreeze_depth"]) for t in record.trials) <= 2


def test_flags_yaml_and_python_give_the_same_trials(tmp_path: Path) -> None:
    from search.config.config_file import load_config

    settings = {**SMALL, "epochs": 2, "register": False, "seed": 11, "storage": str(tmp_path / "python")}
    (tmp_path / "search.yaml").write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in settings.items()))
    config = load_config(tmp_path / "search.yaml")
    assert config == SearchConfig(**settings)  # so one search stands for both
    by_python = run_search(config)
    flags = ["--storage", str(tmp_path / "flags"), "--no-register", "--seed", "11", "--quiet"]
    flags += ["--trials", "2", "--epochs", "2", "--baseline-trials", "0"]
    flags += ["--confirm-seeds", "1", "--max-concurrent", "1", "--probe", "off", "--finalists", "1"]
    flags += ["--no-refit"]
    assert cli.main(["search", *flags]) == 0
    by_flags = read_record("digits", str(tmp_path / "flags"))

    def numbers(trials: Any) -> list[Any]:
        return [
            (t.params, t.state, [(e.val_accuracy, e.val_loss, e.train_loss) for e in t.epochs])
            for t in trials
        ]

    assert numbers(by_python.record.trials) == numbers(by_flags.trials)


def test_enqueued_configurations_are_all_that_runs_when_trials_equals_their_number(
    enqueued: tuple[SearchConfig, SearchResult],
) -> None:
    _, result = enqueued
    assert [dict(t.params) for t in result.record.trials] == ENQUEUED


def test_another_setting_under_the_same_name_is_refused(enqueued: tuple[SearchConfig, SearchResult]) -> None:
    config, _ = enqueued
    with pytest.raises(LedgerError, match="epochs: expected 1, received 2") as refused:
        run_search(config.replace(epochs=2, space="full"))
    assert "space: expected" in str(refused.value)


def test_diverged_trials_are_pruned_with_their_reason_and_the_others_continue(tmp_path: Path) -> None:
    ranges = ("unfreeze_depth: {low: 0, high: 4}", "learning_rate: {low: 1.0e-3, high: 10, log: true}")
    (tmp_path / "wild.yaml").write_text("\n".join((*ranges, "weight_decay: {low: 0, high: 1}")))
    wanted = [
        {"unfreeze_depth": depth, "learning_rate": rate, "weight_decay": decay}
        for depth, rate, decay in ((0, 10.0, 1.0), (2, 10.0, 1.0), (1, 1e-3, 0.0))
    ]
    (tmp_path / "first.jsonl").write_text("\n".join(json.dumps(w) for w in wanted))
    settings = {**SMALL, "trials": 3, "epochs": 40, "scheduler": "none", "register": False}
    files = {"space": str(tmp_path / "wild.yaml"), "enqueue": str(tmp_path / "first.jsonl")}
    result = run_search(SearchConfig(storage=str(tmp_path / "runs"), **files, **settings))
    ended = [(t.state, t.reason) for t in result.record.trials]
    assert ended == [("pruned", "diverged"), ("pruned", "diverged"), ("complete", None)]
    assert result.best.number == 2


def test_a_search_that_can_not_start_gives_the_reason_and_leaves_no_trial(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        run_search(SearchConfig(data=str(tmp_path / "empty"), storage=str(tmp_path / "runs"), **SMALL))
    with pytest.raises(SearchError, match="NoSuchNet"):
        run_search(SearchConfig(backbone="NoSuchNet", storage=str(tmp_path / "runs"), **SMALL))
    with pytest.raises(UsageError, match="sampler"):
        SearchConfig(sampler="grid")
    (tmp_path / "a file").write_text("")
    with pytest.raises(SearchError, match="storage: expected a folder that can be written"):
        run_search(SearchConfig(storage=str(tmp_path / "a file"), **SMALL))


def test_patience_ends_a_search_that_has_converged(tmp_path: Path) -> None:
    settings = {**SMALL, "trials": 30, "patience": 3, "sampler": "random"}
    result = run_search(SearchConfig(storage=str(tmp_path), register=False, **settings))
    assert result.record.stopped == "converged"
    assert 4 <= len(result.record.trials) < 30
    values = [t.value for t in result.record.trials if t.value is not None]
    assert max(values) in values[:-3]


def test_a_time_budget_ends_the_search_and_every_trial_has_a_final_state(tmp_path: Path) -> None:
    settings = {**SMALL, "trials": 500, "epochs": 30, "time_budget": "20s", "scheduler": "none"}
    result = run_search(SearchConfig(storage=str(tmp_path), register=False, **settings))
    assert result.record.stopped == "time_budget"
    assert all(t.finished for t in result.record.trials)
    assert 1 <= len(result.record.trials) < 500


class Command:
    """``unfreeze search`` in a process of its own, from a working directory that shadows our packages."""

    def __init__(self, folder: Path, name: str, *flags: str) -> None:
        hostile = folder / "working directory"
        (hostile / "trainables").mkdir(parents=True, exist_ok=True)
        (hostile / "search.py").write_text("raise SystemExit('the wrong search')")
        command = [str(Path(sys.executable).parent / "unfreeze"), "search", "--name", name, *flags]
        self.name, self.storage = name, str(hostile / "unfreeze-runs")
        self.log = folder / "errors.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=hostile, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ.copy()
            )

    def wait_until(self, there: Callable[[], bool], seconds: float = 300) -> None:
        """Wait for something that happens while it runs."""
        end = time.monotonic() + seconds
        while not there():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.2)

    def wait_for_epochs(self, count: int) -> None:
        """Wait until the ledger holds that many epochs."""
        self.wait_until(lambda: sum(len(t.epochs) for t in self.trials()) >= count)

    def trials(self) -> tuple[TrialRecord, ...]:
        """The record in the ledger; None before there is a ledger."""
        try:
            return read_record(self.name, self.storage).trials
        except LedgerError:
            return ()

    def end(self, how: signal.Signals | None = None) -> tuple[int, str, str]:
        """Exit code, output and errors of the ended process; a signal is sent first if one is given."""
        if how is not None:
            self.process.send_signal(how)
        out, _ = self.process.communicate(timeout=300)
        return self.process.returncode, out, self.log.read_text()


LONG = "--trials 4 --epochs 8 --baseline-trials 0 --confirm-seeds 1 --scheduler none".split()


def check_whole(command: Command, before: tuple[TrialRecord, ...]) -> None:
    """A search of four trials is complete, each trial exists once, and what there was ``before`` is unchanged."""
    import mlflow

    record = read_record(command.name, command.storage)
    assert [t.state for t in record.trials] == ["complete"] * 4
    # The frozen probe, which is the first trial, has a single epoch.
    assert [[e.epoch for e in t.epochs] for t in record.trials] == [[1], *[list(range(1, 9))] * 3]
    assert [t.params for t in record.trials[: len(before)]] == [t.params for t in before]
    client = mlflow.MlflowClient(record.tracking_uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`unfreeze.search` = '{command.name}'")
    assert sorted(r.info.status for r in runs) == ["FINISHED"] * 5
    assert len(client.search_model_versions("name = 'unfreeze-digits'")) == 1


def test_a_running_search_is_locked_and_the_same_command_resumes_it_after_ctrl_c(tmp_path: Path) -> None:
    first = Command(tmp_path, "two words", *LONG)
    first.wait_for_epochs(1)
    config = SearchConfig(storage=first.storage, name="two words", trials=4, epochs=8)
    with pytest.raises(SearchError, match=rf"already running in process {first.process.pid}"):
        run_search(config)
    first.wait_until(lambda: "\ntrial " in first.log.read_text())
    code, _, err = first.end(signal.SIGINT)
    assert code == 130, err
    assert "unfreeze search --name 'two words' --trials 4" in err
    assert "Traceback" not in err
    before = first.trials()
    second = Command(tmp_path, "two words", *LONG, "--json")
    code, out, err = second.end()
    assert code == 0, err
    result = json.loads(out)
    assert "models:/" in out or "unfreeze-digits" in out
    assert sum(result["trials"].values()) == 4
    assert result["outcome"]["verdict"] is None
    assert Path(result["report"]).is_file()
    check_whole(second, before)
