"""The cost of trials goes from the record to MLflow, files, terminal and report."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from search.records.cost import activations_phrase, cost_phrases, cost_rows, search_cost
from search.records.record import BackboneSummary, SearchRecord, TaskSummary, TrialRecord
from search.records.results import best_json, record_json, trials_table
from search.report.page import render
from search.tracking.run_content import trial_content
from search.views.summary import print_summary
from trainables.epoch_metrics import EpochMetrics

KEPT: dict[str, Any] = {
    "reuse": True,
    "place": "disk",
    "reason": "8 view(s) of 12.0 MB together are small",
    "hits": 40,
    "misses": 8,
    "derived": 2,
    "bytes_read": 60_000_000,
    "bytes_written": 12_000_000,
    "saved_seconds": 90.0,
    "programs_compiled": 1,
    "epochs_together": 5,
}
LIVE: dict[str, Any] = {
    **dict.fromkeys(KEPT, 0),
    "reuse": False,
    "place": "none",
    "reason": "nothing is <b>frozen</b>",
}
STAGES = {"suffix": 2.0, "compile": 1.5, "wait": 0.25}


def trial(number: int, cost: dict[str, Any], stages: dict[str, float] | None = None) -> TrialRecord:
    curve = (EpochMetrics(1, 0.5, 1.0, 1.0, 2.0),)
    return TrialRecord(
        number, "complete", "finetune", {"unfreeze_depth": 1}, 0.5, curve, stages=stages or STAGES, cost=cost
    )


def record(*trials: TrialRecord) -> SearchRecord:
    return SearchRecord(
        name="digits",
        metric="val_accuracy",
        direction="maximize",
        task=TaskSummary(
            "digits", "d", ("a", "b"), {"train": 10, "validation": 5, "test": 7}, (8, 8), "here"
        ),
        backbone=BackboneSummary("print", "default", "d", (32, 32), 287_344, ("one", "two")),
        config={"epochs": 1, "method": "finetune"},
        trials=trials,
        requested=len(trials),
    )


MIXED = record(trial(0, KEPT), trial(1, {**KEPT, "programs_compiled": 0}, {"compile": 0.0}), trial(2, LIVE))


def test_totals_include_the_trials_that_reported_a_cost() -> None:
    total = search_cost(replace(MIXED, trials=(*MIXED.trials, trial(3, {}))))
    assert (total.trials, total.reading, total.programs_compiled) == (3, 2, 1)
    assert (total.hits, total.misses, total.derived, total.epochs_together) == (80, 16, 4, 10)
    assert (total.bytes_read, total.bytes_written) == (120_000_000, 24_000_000)
    assert (total.saved_seconds, total.compile_seconds, total.wait_seconds) == (180.0, 3.0, 0.5)


def test_totals_as_phrases() -> None:
    assert cost_phrases(search_cost(MIXED)) == [
        "2 of 3 trials read cached activations, which saved about 3m 00s of frozen forward passes",
        "1 program compiled for 3 trials in 3.0s",
        "10 epochs of heads trained in one batch with other heads",
    ]
    assert dict(cost_rows(search_cost(MIXED)))["cached activations read"] == "80 times, 120 MB read"


def test_a_search_without_reported_costs_has_no_phrases() -> None:
    nothing = record(trial(0, {}))
    assert cost_phrases(search_cost(nothing)) == []
    assert cost_rows(search_cost(nothing)) == []
    assert "cost" not in _printed(nothing)
    assert "reused from each other" not in render(nothing)


@pytest.mark.parametrize("odd", [math.nan, math.inf, "many", None, True])
def test_non_finite_costs_count_as_0(odd: Any) -> None:
    assert search_cost(record(trial(0, {**KEPT, "saved_seconds": odd}))).saved_seconds == 0


def test_a_trial_reports_whether_its_activations_were_cached_and_why() -> None:
    assert activations_phrase(MIXED.trials[0]) == f"cached on disk: {KEPT['reason']}"
    assert activations_phrase(MIXED.trials[2]) == f"computed live: {LIVE['reason']}"
    assert activations_phrase(trial(0, {})) == ""


def test_mlflow_has_a_metric_for_each_count_and_a_tag_for_the_reason() -> None:
    content = trial_content(MIXED, MIXED.trials[0], "parent")
    points = {p.metric: p.value for p in content.points if p.metric.startswith("system/cost_")}
    assert points["system/cost_hits"] == 40
    assert points["system/cost_programs_compiled"] == 1
    assert points["system/cost_saved_seconds"] == 90
    assert content.tags["unfreeze.activations"] == f"cached on disk: {KEPT['reason']}"
    silent = trial_content(MIXED, trial(0, {}), "parent")
    assert "unfreeze.activations" not in silent.tags


def test_files_and_json_contain_the_cost() -> None:
    (first, *_) = trials_table(MIXED.trials).column("cost").to_pylist()
    assert json.loads(first) == KEPT
    best = best_json(MIXED, MIXED.trials[0])
    assert best["cost"] == KEPT
    assert best["search_cost"]["reading"] == record_json(MIXED)["cost"]["reading"] == 2


def test_terminal_and_report_show_the_totals() -> None:
    assert "2 of 3 trials read cached activations" in _printed(MIXED)
    page = render(MIXED)
    assert "What trials reused from each other" in page
    assert "80 times, 120 MB read" in page
    assert "<b>2</b> computed live: nothing is &lt;b&gt;frozen" in page
    assert "40 read, 8 computed; 1 program compiled" in page


def _printed(shown: SearchRecord) -> str:
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as captured:
        print_summary(shown, None, console)
    return captured.get()
