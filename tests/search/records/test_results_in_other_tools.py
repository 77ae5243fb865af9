"""Other tools read the results of a search: pandas, Polars and DuckDB the trials, TensorBoard the curves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from search.records.record import BackboneSummary, SearchRecord, TaskSummary, TrialRecord
from search.records.results import write_results
from search.tracking.tensorboard_events import run_name, write_events
from trainables.epoch_metrics import EpochMetrics

duckdb = pytest.importorskip("duckdb")
pl = pytest.importorskip("polars")

START = datetime(2025, 3, 1, 12, tzinfo=UTC)


def trial(number: int, state: str, depth: int, accuracies: list[float]) -> TrialRecord:
    curve = tuple(EpochMetrics(n, a, 1 - a, 1.5 - a, 2.0) for n, a in enumerate(accuracies, start=1))
    return TrialRecord(
        number,
        state,  # type: ignore[arg-type]
        "finetune",
        {"unfreeze_depth": depth, "learning_rate": 0.01 * (number + 1), "horizontal_flip": number % 2 == 0},
        max(accuracies, default=None),
        curve,
        reason="scheduler" if state == "pruned" else None,
        started=START + timedelta(minutes=number),
        ended=START + timedelta(minutes=number, seconds=30) if state != "running" else None,
        stages={"prefix": 1.5, "suffix": 0.5},
    )


TRIALS = (
    trial(0, "complete", 0, [0.5, 0.7, 0.6]),
    trial(1, "pruned", 2, [0.4]),
    trial(2, "complete", 2, [0.6, 0.9]),
    trial(3, "running", 1, []),
)
RECORD = SearchRecord(
    "digits ü",
    "val_accuracy",
    "maximize",
    TaskSummary("digits", "d" * 64, ("0", "1"), {"train": 20}, (8, 8), "digits"),
    BackboneSummary("print", "default", "b" * 64, (32, 32), 60_000, ("stem", "top")),
    {},
    TRIALS,
    4,
    started=START,
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Suche 'ü'")
    write_results(RECORD, folder)
    return folder / "trials.parquet"


def test_pandas_reads_the_trials(table: Path) -> None:
    trials = pd.read_parquet(table)
    ended = trials[trials.state == "complete"].set_index("number")
    assert ended.value.idxmax() == 2
    assert trials.groupby("state").size().to_dict() == {"complete": 2, "pruned": 1, "running": 1}
    assert (trials.ended - trials.started).dropna().dt.total_seconds().tolist() == [30, 30, 30]
    assert pd.api.types.is_float_dtype(trials.learning_rate)
    assert trials.val_accuracy[0].tolist() == [0.5, 0.7, 0.6]


def test_polars_reads_the_trials(table: Path) -> None:
    best = (
        pl.scan_parquet(table)
        .filter(pl.col("state") == "complete")
        .group_by("unfreeze_depth")
        .agg(pl.col("value").max(), pl.len().alias("trials"))
        .sort("value", descending=True)
        .collect()
    )
    assert best.rows() == [(2, 0.9, 1), (0, 0.7, 1)]
    curves = pl.read_parquet(table).select("number", "val_accuracy").explode("val_accuracy").drop_nulls()
    assert curves["val_accuracy"].to_list() == [0.5, 0.7, 0.6, 0.4, 0.6, 0.9]
    kinds = pl.read_parquet_schema(table)
    assert kinds["horizontal_flip"] == pl.Boolean
    assert kinds["unfreeze_depth"] == pl.Int64
    assert kinds["started"] == pl.Datetime("us")


def test_duckdb_reads_the_trials(table: Path) -> None:
    name = str(table).replace("'", "''")
    found = duckdb.sql(
        f"SELECT state, count(*) AS trials, max(value) AS best, sum(seconds) AS seconds "
        f"FROM '{name}' GROUP BY state ORDER BY best DESC NULLS LAST"
    ).fetchall()
    assert found == [("complete", 2, 0.9, 10.0), ("pruned", 1, 0.4, 2.0), ("running", 1, None, 0.0)]
    epochs = duckdb.sql(
        f"SELECT number, unnest(val_accuracy) AS accuracy FROM '{name}' ORDER BY accuracy DESC LIMIT 1"
    ).fetchall()
    assert epochs == [(2, 0.9)]
    assert duckdb.sql(f"SELECT reason FROM '{name}' WHERE reason IS NOT NULL").fetchall() == [("scheduler",)]


def test_tensorboard_reads_the_curves_and_parameters(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    plugin = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    for _ in range(2):  # a second time replaces the first
        folders = write_events(RECORD, tmp_path / "curves ü")
    assert [folder.name for folder in folders] == ["0000-finetune", "0001-finetune", "0002-finetune"]
    assert run_name(RECORD, TRIALS[3]) == "0003-finetune"
    events = accumulator.EventAccumulator(str(folders[0]))
    events.Reload()
    points = events.Scalars("val_accuracy")
    assert [(p.step, round(p.value, 6)) for p in points] == [(1, 0.5), (2, 0.7), (3, 0.6)]
    assert [p.wall_time - START.timestamp() for p in points] == pytest.approx([2, 4, 6], abs=1e-3)
    assert set(events.Tags()["scalars"]) == {
        "val_accuracy",
        "val_loss",
        "train_loss",
        "epoch_seconds",
        "best/val_accuracy",
    }
    assert [round(p.value, 6) for p in events.Scalars("best/val_accuracy")] == [0.7]
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = plugin.HParamsPluginData.FromString(content).session_start_info.hparams
    assert started["unfreeze_depth"].number_value == 0
    assert started["learning_rate"].number_value == pytest.approx(0.01)
    assert started["horizontal_flip"].bool_value is True
    assert started["state"].string_value == "complete"


def test_the_command_writes_the_curves_of_a_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from search.cli import main
    from search.config.space import core_space
    from search.ledger.ledger import Ledger, sqlite_url
    from search.ledger.reader import about_to_json

    (tmp_path / "ü").mkdir()
    ledger = Ledger(
        sqlite_url(tmp_path / "ü" / "ledger.db"),
        "ü",
        direction="maximize",
        metric="val_accuracy",
        method="finetune",
        sampler="random",
        seed=0,
    )
    ledger.set_attribute("about", about_to_json(RECORD))
    ledger.set_attribute("started", START.isoformat())
    arguments = ["curves", "ü", "--storage", str(tmp_path)]
    assert main(arguments) == 1
    assert "no trial has finished an epoch yet" in capsys.readouterr().err
    number = ledger.start(core_space(2).suggest).number
    ledger.report(number, EpochMetrics(1, 0.5, 0.7, 0.6, 1.0))
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert Path(said.out.strip()) == tmp_path / "ü" / "tensorboard"
    assert "1 run; show them with: tensorboard --logdir" in said.err
    assert len(list((tmp_path / "ü").glob("tensorboard/0000-finetune/events.out.tfevents.*"))) == 1
    assert main(["curves", "x", "--storage", str(tmp_path)]) == 1
    assert "expected a search in" in capsys.readouterr().err
