"""``--method all`` with a source, a teacher and two backbones: one search that holds all ways to transfer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from digit_tasks import dense_classifier, few_labels

from search import SearchConfig, SearchResult, run_search
from search.commands.status import status_page
from search.ledger.reader import read_record
from search.records.record import TrialRecord

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]

OWN = {
    "finetune": {"learning_rate"},
    "reweight": {"weighting", "source_share"},
    "align": {"alignment", "alignment_weight"},
    "distill": {"distillation", "distill_weight"},
}


@pytest.fixture(scope="module")
def config(weird_folder: Path) -> SearchConfig:
    folder = weird_folder / "all"
    names = [str(folder / f"{name} ü.keras") for name in ("narrow", "wide")]
    for file, widths in zip(names, [(8,), (16, 16)], strict=True):
        dense_classifier(Path(file), range(5), epochs=1, widths=widths)
    tries = [
        {"backbone": names[0], "method": "finetune", "unfreeze_depth": 1},
        {"backbone": names[1], "method": "reweight", "unfreeze_depth": 2, "weighting": "tradaboost"},
        {"backbone": names[1], "method": "align", "unfreeze_depth": 1, "alignment": "coral"},
        {"backbone": names[0], "method": "distill", "unfreeze_depth": 1, "distillation": "both"},
    ]
    (folder / "first.jsonl").write_text("\n".join(map(json.dumps, tries)))
    return SearchConfig(
        data=str(few_labels(folder / "target.parquet", range(3), 8)),
        source=str(few_labels(folder / "source.parquet", range(1, 5), 8)),
        backbone=names,
        teacher="print",
        method="all",
        enqueue=str(folder / "first.jsonl"),
        name="all",
        storage=str(folder / "runs"),
        trials=4,
        epochs=1,
        batch_size=16,
        baseline_trials=1,
        confirm_seeds=1,
        probe="off",
        finalists=1,
        refit=False,
    )


@pytest.fixture(scope="module")
def result(config: SearchConfig) -> SearchResult:
    return run_search(config)


def expect_own_parameters(trials: Sequence[TrialRecord]) -> None:
    """Check that each trial has ended well, with the parameters of its method and with none of another method."""
    for trial in trials:
        assert trial.state in ("complete", "pruned"), trial.error
        assert trial.params["method"] == trial.method
        others = {name for method, names in OWN.items() if method != trial.method for name in names}
        assert set(trial.params) >= OWN[trial.method]
        assert not set(trial.params) & (others - OWN[trial.method] - {"learning_rate"})


def test_each_method_trains_with_parameters_of_its_own(result: SearchResult) -> None:
    record = result.record
    assert [t.method for t in record.trials] == list(OWN)
    expect_own_parameters(record.trials)
    assert record.outcome is not None
    assert [b.method for b in record.outcome.baselines] == ["scratch"]
    assert record.teacher is not None
    assert record.source is not None


def test_ledger_mlflow_status_and_report_agree(config: SearchConfig, result: SearchResult) -> None:
    import mlflow

    record = read_record("all", config.storage)
    assert record.trials == result.record.trials
    page = status_page(record).plain
    assert "narrow ü" in page
    assert "· all ·" in page
    client = mlflow.MlflowClient(record.tracking_uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`unfreeze.search` = 'all'")
    children = {int(r.data.tags["unfreeze.trial"]): r for r in runs if "unfreeze.trial" in r.data.tags}
    assert len(runs) == len(record.trials) + 1
    for trial in record.trials:
        assert set(children[trial.number].data.params) >= set(trial.params)
        assert children[trial.number].data.params["method"] == trial.method
    report = result.report_path.read_text()
    for words in ("Teacher", "Of the source", "tradaboost", "coral", "wide ü"):
        assert words in report


def test_more_trials_extend_the_search_with_methods_that_the_sampler_chooses(
    config: SearchConfig, result: SearchResult
) -> None:
    more = run_search(config.replace(trials=6)).record
    assert more.trials[:4] == result.record.trials
    assert [t.number for t in more.trials] == list(range(6))
    expect_own_parameters(more.trials)
    assert [t.method for t in read_record("all", config.storage).trials] == [t.method for t in more.trials]
