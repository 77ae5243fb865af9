"""From task to task: a champion is the next search's backbone, its task is kept, and its version stays the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from digit_tasks import dense_classifier, few_labels

from search import SearchConfig, SearchResult, run_search
from search.registry import PromotionRefused, history, judge, promote
from search.registry.promotion import PromotionComparison

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]

MODEL = "digits ü"


@pytest.fixture(scope="module")
def first(weird_folder: Path) -> SearchConfig:
    """A search whose winner is the champion."""
    folder = weird_folder / "task to task"
    config = SearchConfig(
        data=str(few_labels(folder / "old ü.parquet", range(3), 8)),
        backbone=str(dense_classifier(folder / "dense.keras", range(3), epochs=10, widths=(16, 16))),
        name="old",
        model_name=MODEL,
        storage=str(folder / "runs"),
        trials=1,
        epochs=2,
        scheduler="none",
        batch_size=16,
        baseline_trials=0,
        confirm_seeds=1,
        probe="off",
        finalists=1,
        refit=False,
    )
    promote(MODEL, run_search(config).tracking_uri, force=True)
    return config


@pytest.fixture(scope="module")
def second(first: SearchConfig, weird_folder: Path) -> SearchConfig:
    """A search on the next task, which has more classes; it tries each way to remember the old task once."""
    folder = weird_folder / "task to task"
    tries = [
        {"unfreeze_depth": 2, "learning_rate": 0.003, "remembering": how, "remember_weight": 1.0}
        for how in ("rehearsal", "lwf", "ewc")
    ]
    (folder / "first.jsonl").write_text("\n".join(map(json.dumps, tries)))
    return first.replace(
        data=str(few_labels(folder / "new.parquet", range(3, 8), 8)),
        backbone=f"models:/{MODEL}@champion",
        remember=first.data,
        enqueue=str(folder / "first.jsonl"),
        name="new",
        trials=3,
    )


@pytest.fixture(scope="module")
def result(second: SearchConfig) -> SearchResult:
    return run_search(second)


def test_each_way_to_remember_keeps_the_old_task(result: SearchResult) -> None:
    assert [t.params["remembering"] for t in result.record.trials] == ["rehearsal", "lwf", "ewc"]
    for trial in result.record.trials:
        assert trial.state == "complete", trial.error
        assert float(trial.cost["old_accuracy"]) > 0.6
    assert result.record.outcome is not None
    assert result.record.outcome.old_task is not None


@pytest.fixture(scope="module")
def refused(result: SearchResult) -> PromotionComparison:
    """The decision of the gate on the second model, while the first is the champion."""
    # By its number: after so few epochs it may not be better than the most frequent class, and is not proposed then.
    contest = judge(MODEL, result.tracking_uri, version=2, max_forgetting=0.01)
    with pytest.raises(PromotionRefused, match=r"version 2 of model .* is not promoted"):
        promote(MODEL, result.tracking_uri, version=2, max_forgetting=0.01)
    return contest


@pytest.fixture(scope="module")
def promoted(result: SearchResult, refused: PromotionComparison) -> SearchResult:
    """The second search, after its winner was promoted."""
    promote(MODEL, result.tracking_uri, version=2, force=True)
    return result


def test_the_gate_compares_the_winner_with_the_champion_that_it_started_from(
    refused: PromotionComparison,
) -> None:
    assert refused.champion is not None
    assert refused.champion.version == "1"
    assert not refused.judgement.passes
    assert "different classes" in refused.judgement.reason


def test_a_resumed_search_keeps_its_backbone_version_after_its_winner_is_promoted(
    second: SearchConfig, promoted: SearchResult
) -> None:
    result = promoted
    assert [event.version for event in history(MODEL, result.tracking_uri)] == ["1", "2"]
    again = run_search(second)
    assert again.record.trials == result.record.trials
    assert again.record.backbone == result.record.backbone
    assert again.model_uri == f"models:/{MODEL}/2"
    # The aliases are those of now, not those that the version had when the search ended.
    assert "champion" not in result.model_state
    assert again.model_state in ("alias champion", "aliases challenger and champion")


def test_the_third_task_starts_from_the_second_champion(second: SearchConfig, promoted: SearchResult) -> None:
    third = second.replace(data=second.remember, remember=second.data, name="third", trials=1, enqueue=None)
    record = run_search(third.replace(register_model=False)).record
    assert record.backbone.digest != promoted.record.backbone.digest
    assert record.outcome is not None
    assert record.outcome.old_task is not None
