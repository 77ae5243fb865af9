"""The HTML of a search for notebooks, and when the view draws it; no notebook runs."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from search.records.record import BackboneSummary, Interval, Outcome, SearchRecord, TaskSummary, TrialRecord
from search.views.notebook import NotebookView, in_notebook
from search.views.notebook_html import progress_html, result_html
from search.views.view import QuietView, default_view
from trainables.epoch_metrics import EpochMetrics

HOSTILE = "</td><script>alert(1)</script>"


def trial(number: int, reached: float, state: str = "complete", **changes: object) -> TrialRecord:
    epochs = tuple(EpochMetrics(e, reached * e / 3, 1.0, 1.0, 0.1) for e in range(1, 4))
    known = TrialRecord(
        number, state, "finetune", {"unfreeze_depth": number, "note": HOSTILE}, reached, epochs
    )
    return replace(known, **changes)


def search(*trials: TrialRecord, **changes: object) -> SearchRecord:
    task = TaskSummary("plants", "d" * 64, ("a", "b"), {"train": 4, "test": 9}, (8, 8), "plants")
    backbone = BackboneSummary("print", "default", "b" * 64, (32, 32), 60_000, ("low", "top"))
    known = SearchRecord(
        HOSTILE, "val_accuracy", "maximize", task, backbone, {"epochs": 3}, trials, requested=len(trials)
    )
    return replace(known, **changes)


def words(html: str) -> str:
    return re.sub(r"<[^>]+>", " ", html)


class Balanced(HTMLParser):
    """A parser that fails on a tag that is not closed or is closed by another."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_progress_shows_counts_the_best_and_a_curve_for_each_trial() -> None:
    record = search(trial(0, 0.5), trial(1, 0.75), trial(2, 0.6, "running"), requested=5)
    html = progress_html(record, "winner: 1 of 3", "going on")
    assert "2 of 5 trials" in words(html)
    assert re.search(r"best: +0\.7500 +in trial 1", words(html))
    assert "★ 1" in html
    assert "winner: 1 of 3" in html
    tags = Balanced(html).tags
    assert tags.count("polyline") == 3
    assert "script" not in tags


def test_a_trial_without_finite_values_has_no_curve() -> None:
    lost = trial(0, 0.5, "pruned", value=None, epochs=(EpochMetrics(1, math.nan, math.nan, math.inf, 0.1),))
    assert "polyline" not in Balanced(progress_html(search(lost), "", "")).tags
    assert "no trial has a result" in words(result_html(search(lost)))
    Balanced(progress_html(search(), "", ""))


def test_the_result_shows_the_winner_the_gain_and_the_best_trials() -> None:
    outcome = Outcome(
        trial=7,
        params={},
        seeds=(0,),
        val_accuracies=(0.9,),
        test_accuracy=Interval(0.954, 0.943, 0.965),
        seed_test_accuracies=(0.95,),
        confusion=((5, 0), (0, 4)),
        scratch_params={},
        scratch_trials=8,
        scratch_test_accuracies=(0.92,),
        gain=Interval(-0.0271, -0.0408, -0.0132),
        verdict="negative transfer",
    )
    html = result_html(search(*(trial(n, 0.1 * n) for n in range(8)), outcome=outcome))
    said = " ".join(words(html).split())
    assert "trial 7 wins with 95.4 % on test images (95 % interval 94.3 to 96.5 %; " in said
    assert "always the most frequent class: 55.6 %)" in said
    assert "−2.7 points over training from scratch" in said
    assert "training from scratch is better" in said
    shown = re.findall(r"<tr><td[^>]*>(?:★ )?(\d+)<", html)
    assert shown == ["7", "6", "5", "4", "3"]
    assert "script" not in Balanced(html).tags


def test_a_closed_view_shows_the_search_and_not_its_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    view = NotebookView()
    view.stage("loading", 0, 0)
    assert "loading …" in view.html()
    view.update(search(trial(0, 0.5), name="the search"))
    view.update(search(trial(0, 0.25), name="the baseline"))
    assert "the baseline" in view.html()
    view.event("winner: trial 0")
    assert "winner: trial 0" in view.html()
    view.close()
    assert "the search" in view.html()
    assert "winner: trial 0" not in view.html()


def test_nothing_is_shown_outside_of_a_notebook() -> None:
    assert not in_notebook()
    assert isinstance(default_view(), QuietView)
    assert "ipykernel" not in sys.modules
