"""A whole search that chooses among backbones of different sizes and numbers of blocks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from digit_tasks import dense_classifier, few_labels

from search import SearchConfig, SearchResult, run_search
from search.ledger.reader import read_record
from search.records.predictions import read_predictions
from trainables.errors import LedgerError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]


@pytest.fixture(scope="module")
def config(weird_folder: Path) -> SearchConfig:
    folder = weird_folder / "several"
    data = few_labels(folder / "few.parquet", range(3), 8)
    dense = dense_classifier(folder / "dense ü.keras", range(5), epochs=1, widths=(16, 16))
    (folder / "first.jsonl").write_text(
        json.dumps({"backbone": str(dense), "unfreeze_depth": 2})
        + "\n"
        + json.dumps({"backbone": "print", "unfreeze_depth": 4, "learning_rate": 0.003})
        + "\n"
    )
    return SearchConfig(
        data=str(data),
        backbone=["print", str(dense)],
        enqueue=str(folder / "first.jsonl"),
        name="several",
        storage=str(folder / "runs"),
        trials=3,
        epochs=2,
        baseline_trials=2,
        confirm_seeds=2,
        batch_size=16,
        probe="off",
        finalists=1,
        refit=False,
    )


@pytest.fixture(scope="module")
def searched(config: SearchConfig) -> SearchResult:
    return run_search(config)


def test_each_trial_trains_the_backbone_that_it_names(config: SearchConfig, searched: SearchResult) -> None:
    record = searched.record
    assert set(record.backbones) == set(config.backbones)
    assert {b.input_size for b in record.backbones.values()} == {(32, 32), (8, 8)}
    first, second, _ = record.trials
    assert [t.params["backbone"] for t in (first, second)] == [config.backbones[1], "print"]
    assert [t.params["unfreeze_depth"] for t in (first, second)] == [2, 4]
    assert all(t.state in ("complete", "pruned") for t in record.trials)
    assert read_record("several", config.storage).backbones == record.backbones


def test_backbones_are_scored_before_the_first_trial_and_the_report_explains_the_scores(
    config: SearchConfig, searched: SearchResult
) -> None:
    prior = searched.record.prior
    assert prior is not None
    assert set(prior["scores"]) == set(config.backbones)
    assert sum(prior["probabilities"].values()) == pytest.approx(1)
    assert all(np.isfinite(list(scores.values())).all() for scores in prior["others"].values())
    assert "by score; trials:" in searched.report_path.read_text()
    assert read_record("several-scratch", config.storage, baseline_ledger(config)).prior is None


def baseline_ledger(config: SearchConfig) -> str:
    from search.ledger.ledger import sqlite_url

    return sqlite_url(Path(config.storage) / "several" / "baseline" / "ledger.db")


def test_the_winner_is_measured_and_registered_with_its_own_backbone(
    config: SearchConfig, searched: SearchResult
) -> None:
    import mlflow

    record, outcome = searched.record, searched.record.outcome
    assert outcome is not None
    own = record.backbones[str(outcome.params["backbone"])]
    client = mlflow.MlflowClient(record.tracking_uri)
    version = client.get_model_version("unfreeze-few", str(outcome.model_version))
    assert version.tags["unfreeze.backbone_digest"] == own.digest
    runs = client.search_runs(
        [e.experiment_id for e in client.search_experiments()], "tags.`unfreeze.search` = 'several'"
    )
    logged = {r.data.params["backbone"] for r in runs if "unfreeze.trial" in r.data.tags}
    assert logged == {str(t.params["backbone"]) for t in record.trials}
    report = searched.report_path.read_text()
    assert f"backbone {own.name} (of 2)" in report


def test_winner_and_baseline_classify_the_same_images_at_their_own_sizes(
    config: SearchConfig, searched: SearchResult
) -> None:
    outcome = searched.record.outcome
    assert outcome is not None
    assert set(outcome.scratch_params or {}) >= {"backbone", "learning_rate"}
    (file,) = (Path(config.storage) / "several" / "winner").glob("*-answers.parquet")
    answers = read_predictions(file)
    np.testing.assert_allclose(answers.correct.mean(axis=1), outcome.seed_test_accuracies)
    np.testing.assert_allclose(answers.scratch_correct.mean(axis=1), outcome.scratch_test_accuracies)


def test_another_search_can_warm_start_from_this_one(config: SearchConfig, searched: SearchResult) -> None:
    import mlflow

    changes = {"name": "after", "warm_start": ["several"], "enqueue": None, "trials": 1, "baseline_trials": 0}
    result = run_search(config.replace(**changes, confirm_seeds=1, register_model=False))
    record, best = result.record, searched.best
    assert record.trials[0].origin == f"warm start: several #{best.number}"
    assert record.trials[0].params == best.params
    assert record.warm_start is not None
    assert record.warm_start[0]["similarity"] == pytest.approx(1.0)
    assert "Taken from earlier searches" in result.report_path.read_text()
    client = mlflow.MlflowClient(record.tracking_uri)
    runs = client.search_runs(
        [e.experiment_id for e in client.search_experiments()], "tags.`unfreeze.search` = 'after'"
    )
    tags = [r.data.tags for r in runs]
    assert {t.get("unfreeze.origin") for t in tags} == {None, f"warm start: several #{best.number}"}
    assert any(f"several #{best.number}" in t.get("unfreeze.warm_start_from", "") for t in tags)
    again = config.replace(**{**changes, "warm_start": None}, confirm_seeds=1, register_model=False)
    with pytest.raises(LedgerError, match="warm_start: expected"):
        run_search(again)


def test_the_same_command_changes_nothing_and_another_backbone_is_refused(
    config: SearchConfig, searched: SearchResult
) -> None:
    assert run_search(config.replace(backbone=config.backbones[::-1])).record.trials == searched.record.trials
    dense_classifier(Path(config.backbones[1]), range(5), epochs=1, widths=(16, 16), seed=1)
    with pytest.raises(LedgerError, match="backbone: expected"):
        run_search(config)
