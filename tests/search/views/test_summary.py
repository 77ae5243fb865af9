"""The summary after a search, and the status of a search, on the terminal and as JSON."""

from __future__ import annotations

import io
import json
import math
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from search.commands.status import status_page
from search.records.formatting import abbreviate_count, format_value, plural
from search.records.record import (
    BackboneSummary,
    Interval,
    Outcome,
    SearchRecord,
    TaskSummary,
    TrialRecord,
    Verdict,
)
from search.records.results import record_json
from search.views.summary import next_commands, print_summary
from trainables.epoch_metrics import EpochMetrics
from trainables.serving.footprint import Footprint, Latency

PARAMS = {"unfreeze_depth": 2, "learning_rate": 0.00431, "head_units": 64, "augmentation_strength": 0.25}
CURVE = tuple(EpochMetrics(e, 0.3 * e, 1.0, 1.0, 2.0) for e in (1, 2, 3))
BEST = TrialRecord(4, "complete", "finetune", PARAMS, 0.9, CURVE)
OUTCOME = Outcome(
    trial=4,
    params=PARAMS,
    seeds=(1, 2, 3),
    val_accuracies=(0.9, 0.91, 0.92),
    test_accuracy=Interval(0.978, 0.969, 0.985),
    seed_test_accuracies=(0.97, 0.98, 0.98),
    confusion=((1, 0), (0, 1)),
    scratch_trials=24,
    gain=Interval(0.031, 0.012, 0.05),
    verdict="helps",
    model_name="unfreeze-digits",
    model_version="3",
    footprint=Footprint(
        679_000,
        150_000,
        0.8,
        Latency(3.3, 3.2, 3.4),
        Latency(0.9, 0.9, 1),
        "a processor, 2 threads",
    ),
)


def record(
    outcome: Outcome | None = OUTCOME, storage: str = "./unfreeze-runs", **changes: object
) -> SearchRecord:
    made = SearchRecord(
        name="digits",
        metric="val_accuracy",
        direction="maximize",
        task=TaskSummary(
            "digits", "d", ("a", "b"), {"train": 10, "validation": 5, "test": 1497}, (8, 8), "here"
        ),
        backbone=BackboneSummary("print", "default", "d", (32, 32), 287_344, ("one", "two")),
        config={"epochs": 3, "method": "finetune", "storage": storage, "tracking_uri": None},
        trials=(BEST, TrialRecord(5, "pruned", "finetune", PARAMS, 0.5, CURVE[:1], "scheduler")),
        requested=2,
        elapsed=102.0,
        outcome=outcome,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def printed(shown: SearchRecord, report: Path | None = None, width: int = 80, model_state: str = "") -> str:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as captured:
        print_summary(shown, report, console, model_state)
    return captured.get()


def test_the_summary_has_accuracy_gain_configuration_model_and_report() -> None:
    text = printed(record(), Path("/runs/digits/report.html"), model_state="alias challenger")
    for words in (
        "2 trials in 1m 42s",
        "97.8 %   95 % interval 96.9 to 98.5 %, 1,497 images",
        "+3.1 points   95 % interval +1.2 to +5.0",
        "transfer helps (against 24 trials from scratch)",
        "trial 4, val_accuracy 0.9000",
        "learning_rate          0.00431",
        "unfreeze-digits version 3, alias challenger",
        "679 kB, 3.3 ms for an image (a processor, 2 threads)",
        "/runs/digits/report.html",
        "unfreeze promote unfreeze-digits --version 3  # ",
        "unfreeze ui ",
    ):
        assert words in text, words
    assert "edge" not in text
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    ("state", "lines"),
    [
        ("", ["unfreeze-digits version 3"]),
        ("aliases challenger and champion", ["unfreeze-digits version 3, aliases challenger and champion"]),
        ("the challenger is version 4", ["unfreeze-digits version 3", "the challenger is version 4"]),
    ],
)
def test_the_summary_names_only_aliases_that_the_version_has(state: str, lines: list[str]) -> None:
    shown = [line.removeprefix("model").strip() for line in printed(record(), model_state=state).splitlines()]
    start = shown.index(lines[0])
    assert shown[start : start + len(lines)] == lines
    assert state or not any("alias" in line or "challenger" in line for line in shown)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("no difference", "neither helps nor hurts"),
        ("negative transfer", "training from scratch is better here"),
    ],
)
def test_the_verdict_is_in_plain_words(verdict: Verdict, words: str) -> None:
    assert words in printed(record(replace(OUTCOME, verdict=verdict, gain=Interval(-0.02, -0.03, -0.01))))


def test_no_verdict_is_claimed_without_a_baseline() -> None:
    text = printed(record(replace(OUTCOME, gain=None, verdict=None)))
    assert "not measured" in text
    assert "helps" not in text


def test_the_summary_names_edges_and_an_early_end() -> None:
    text = printed(record(edges=("learning_rate", "head_units"), stopped="time_budget"))
    assert "learning_rate and head_units lie on edges of the search space" in text
    assert "the time budget is spent" in text


def test_a_search_without_result_has_a_summary_too() -> None:
    text = printed(record(outcome=None, trials=()))
    assert "no trial has a result" in text
    assert "promote" not in text


def test_a_long_path_is_never_broken() -> None:
    path = Path("/") / ("a long folder name with ü and 字 " * 8) / "report.html"
    assert str(path) in printed(record(), path)


@pytest.mark.parametrize("storage", ["my runs", "it's ü", "a;b $HOME `x`", "./unfreeze-runs"])
def test_commands_are_quoted_for_a_shell(storage: str) -> None:
    for command, _ in next_commands(record(storage=storage)):
        words = shlex.split(command)
        assert words[0] == "unfreeze"
        assert words[words.index("--storage") + 1 :] == [storage] if storage != "./unfreeze-runs" else True


def test_commands_name_the_tracking_server() -> None:
    shown = record()
    shown = replace(shown, config={**shown.config, "tracking_uri": "http://mlflow:5000"})
    assert all("--tracking-uri http://mlflow:5000" in command for command, _ in next_commands(shown))


def test_the_json_is_strict_and_complete() -> None:
    broken = replace(BEST, number=6, state="failed", epochs=(replace(CURVE[0], epoch_seconds=math.nan),))
    content = record_json(record(trials=(BEST, broken)), Path("/r.html"), "models:/unfreeze-digits/3")
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["best"] == {"trial": 4, "state": "complete", "value": 0.9, "params": PARAMS}
    assert content["outcome"]["gain"] == {"estimate": 0.031, "low": 0.012, "high": 0.05}
    assert content["trials"] == {"waiting": 0, "running": 0, "complete": 1, "pruned": 0, "failed": 1}
    assert content["model_uri"] == "models:/unfreeze-digits/3"


def test_status_counts_best_cost_and_failures() -> None:
    crash = "Traceback (most recent call last):\n  File …\nValueError: bad [shape]"
    failed = [TrialRecord(n, "failed", "finetune", PARAMS, reason="crashed", error=crash) for n in (7, 8)]
    shown = record(trials=(BEST, *failed), requested=24)
    text = status_page(shown).plain
    assert "1 complete, 2 failed of 24" in text
    assert "val_accuracy 0.9000 (trial 4): unfreeze_depth=2" in text
    assert "1m 42s, of it 6.0s in epochs" in text
    assert "2 trials (7, 8): crashed: ValueError: bad [shape]" in text
    assert "Traceback" not in text
    assert "Traceback" in status_page(shown, tracebacks=True).plain


def test_status_and_json_show_why_trials_ended_and_which_were_retried() -> None:
    pruned = [TrialRecord(n, "pruned", "finetune", PARAMS, reason="scheduler") for n in (10, 11)]
    memory = TrialRecord(7, "pruned", "finetune", PARAMS, reason="out_of_memory", batch_size=16)
    hung = TrialRecord(
        8, "failed", "finetune", PARAMS, reason="timed_out", retries=2, error="x\nnothing, 3 times"
    )
    shown = record(trials=(replace(BEST, retries=1), *pruned, memory, hung))
    text = status_page(shown).plain
    assert "2 by the scheduler, 1 no memory" in text
    assert "trial 4 1 time, trial 8 2 times, trial 7 with batches of 16" in text
    assert "1 trial (8): timed out: nothing, 3 times" in text
    assert "by the scheduler" not in status_page(record(trials=(BEST, *pruned))).plain
    content = record_json(shown)
    assert content["reasons"] == {"scheduler": 2, "out_of_memory": 1, "timed_out": 1}
    assert content["retries"] == {"4": 1, "8": 2}
    assert content["batch_sizes"] == {"7": 16}


def test_status_of_a_search_that_has_just_begun() -> None:
    text = status_page(record(outcome=None, trials=(), requested=24)).plain
    assert "none of 24" in text
    assert "no trial has a result yet" in text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (64, "64"),
        (0.00431, "0.00431"),
        (1e-5, "1e-05"),
        (True, "yes"),
        (None, "–"),
        (float("nan"), "–"),
        ("x", "x"),
    ],
)
def test_numbers_are_formatted(value: float | bool | str | None, words: str) -> None:
    assert format_value(value) == words


def test_magnitudes_are_abbreviated_and_plurals_formed() -> None:
    assert [abbreviate_count(n) for n in (0, 950, 1500, 287_344, 4_200_000, 143_667_240)] == [
        "0",
        "950",
        "1.5k",
        "287k",
        "4.2M",
        "144M",
    ]
    assert [plural(1, "class"), plural(2, "class"), plural(1200, "trial")] == [
        "1 class",
        "2 classes",
        "1,200 trials",
    ]
