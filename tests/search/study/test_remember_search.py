"""A whole search that keeps an old task: what was forgotten is in the ledger, the report, MLflow and the gate."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from digit_tasks import dense_classifier, few_labels
from example_records import finished
from rich.console import Console

from search import SearchConfig, SearchResult, run_search
from search.commands.promote import comparison_table
from search.commands.status import status_page
from search.config.space import core_space, full_space
from search.ledger.reader import read_record
from search.records.record import OldTask
from search.records.results import outcome_from_json, outcome_to_json
from search.registry import judge
from search.registry.gate import apply_forgetting_limit
from search.registry.promotion import PromotionComparison
from search.registry.promotion_history import decision_numbers
from search.report.notices import notices
from search.tracking.tags import forgotten_of
from search.views.summary import summary_text
from trainables.data.task import open_task
from trainables.errors import DataError, UsageError


@pytest.fixture(scope="module")
def result(weird_folder: Path) -> SearchResult:
    folder = weird_folder / "remember"
    backbone = dense_classifier(folder / "dense ü.keras", range(5), epochs=20, widths=(16, 16))
    old = few_labels(folder / "old ü.parquet", range(5), 30)
    configurations = [
        {"unfreeze_depth": 2, "learning_rate": 0.01, "remembering": how, "remember_weight": 1.0}
        for how in ("ewc", "lwf")
    ]
    (folder / "first.jsonl").write_text("\n".join(map(json.dumps, configurations)))
    return run_search(
        SearchConfig(
            data=str(few_labels(folder / "new.parquet", range(5, 8), 8)),
            backbone=str(backbone),
            remember=str(old),
            enqueue=str(folder / "first.jsonl"),
            storage=str(folder / "runs"),
            trials=2,
            epochs=3,
            scheduler="none",
            batch_size=16,
            baseline_trials=0,
            confirm_seeds=2,
            probe="off",
            finalists=1,
        )
    )


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray")
def test_the_old_task_is_measured_before_and_after_training(result: SearchResult) -> None:
    import mlflow

    record, outcome = result.record, result.record.outcome
    assert [t.params["remembering"] for t in record.trials] == ["ewc", "lwf"]
    for trial in record.trials:
        assert 0.8 < float(trial.cost["old_accuracy_before"]) <= 1
        assert 0 <= float(trial.cost["old_accuracy"]) <= 1
    assert outcome is not None
    old = outcome.old_task
    assert old is not None
    assert len(old.after) == 2
    assert old.before > 0.8
    assert old.lost is not None
    assert old.lost.estimate == pytest.approx(old.before - sum(old.after) / 2)
    assert old.lost.low <= old.lost.estimate <= old.lost.high
    assert outcome_from_json(outcome_to_json(outcome)) == outcome
    earlier = outcome_to_json(outcome)
    del earlier["old_task"]["lost"]
    assert outcome_from_json(earlier).old_task == replace(old, lost=None)
    assert read_record("new", record.storage).outcome == outcome
    page = result.report_path.read_text()
    assert "The old task" in page
    assert "points on average (95 % interval" in page
    client = mlflow.MlflowClient(record.tracking_uri)
    version = client.get_model_version("unfreeze-new", str(outcome.model_version))
    assert forgotten_of(version.tags) == pytest.approx(old.forgotten, abs=1e-6)
    assert float(version.tags["unfreeze.forgotten_high"]) == pytest.approx(old.lost.high, abs=1e-6)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert sum("unfreeze.old_accuracy" in r.data.tags for r in runs) == 3  # the trials, and the search


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray")
def test_the_gate_refuses_a_model_that_forgot_the_old_task(result: SearchResult) -> None:
    old = result.record.outcome.old_task if result.record.outcome else None
    assert old is not None
    uri = result.record.tracking_uri
    assert old.lost is not None
    lenient = judge("unfreeze-new", uri, version=1, max_forgetting=0.999)
    assert lenient.judgement.decision != "forgets"
    kept = lenient.judgement.old_task
    assert kept is not None
    assert (kept.images, kept.seeds, kept.before) == (old_images(result), 2, pytest.approx(old.before))
    assert kept.lost == old.lost
    assert decision_numbers(lenient.judgement)["old_gain"] == pytest.approx(-old.lost.estimate, abs=1e-6)
    text = shown(lenient)
    assert f"{kept.images} test images of the old task" in text
    assert "before" in text
    passing = replace(lenient.judgement, decision="better")
    most = max(0.0, old.lost.high)
    assert apply_forgetting_limit(passing, old.forgotten, most + 0.001).passes
    assert old.lost.high <= 0 or not apply_forgetting_limit(passing, old.forgotten, most - 0.001).passes


def old_images(result: SearchResult) -> int:
    """The number of test images of the old task, as the search has prepared it."""
    tasks = [open_task(p.parent) for p in Path(result.record.storage).glob(".data/old*/task.json")]
    return tasks[0].counts["test"]


def shown(contest: PromotionComparison) -> str:
    console = Console(width=160, file=io.StringIO())
    with console.capture() as capture:
        console.print(comparison_table(contest))
    return capture.get()


@pytest.mark.parametrize(
    ("after", "words"),
    [(0.969, "has lost 0.8 points"), (0.98, "has gained 0.3 points"), (0.977, "has lost nothing")],
)
def test_terminal_and_report_show_the_forgetting(after: float, words: str) -> None:
    record = finished(config={"remember": "old ü.parquet"})
    assert record.outcome is not None
    record = replace(record, outcome=replace(record.outcome, old_task=OldTask(0.977, (after, 0.9), 0)))
    said = f"97.7 % before, {100 * after:.1f} % and 90.0 % after; the registered model {words}"
    assert said in summary_text(record, None).plain
    assert said in status_page(record).plain
    assert any(f"The registered model's backbone {words}." in notice.text for notice in notices(record))


def test_methods_and_data_that_can_not_remember_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="remember: expected --method finetune"):
        SearchConfig(remember="digits", method="reweight", source="digits")
    with pytest.raises(UsageError, match=r"remember: expected --method finetune.*received 'scratch'"):
        SearchConfig(remember="digits", method="scratch")
    with pytest.raises(UsageError, match="received 'all' with --unlabelled-target"):
        SearchConfig(remember="digits", method="all", source="digits", unlabelled_target=True)
    with pytest.raises(DataError, match="remember: "):
        run_search(SearchConfig(remember=str(tmp_path / "absent"), storage=str(tmp_path / "runs")))


def test_ways_to_remember_are_suggested_only_with_an_old_task_and_trained_blocks() -> None:
    names = {"remembering", "remember_weight"}
    assert names <= set(core_space(4, remember=True).ranges)
    assert not names & {
        *core_space(4).ranges,
        *full_space(4).ranges,
        *core_space(4, "scratch", remember=True).ranges,
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = core_space(4, remember=True)
    for params in [space.suggest(study.ask()) for _ in range(40)]:
        assert names <= params.keys() if params["unfreeze_depth"] else not names & params.keys()
