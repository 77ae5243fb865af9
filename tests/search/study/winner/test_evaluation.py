"""The winner is measured once, and everything that shows the result shows the same numbers."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_records import finished, search, trial
from rich.console import Console

from search.records.predictions import read_predictions
from search.records.record import Finalist, Interval, Outcome, SearchRecord, Selection, TaskSummary
from search.records.results import best_json, outcome_from_json, outcome_to_json, record_json
from search.registry.gate import GateCandidate, decide_promotion
from search.registry.registration import _tags as version_tags
from search.report.headline import headline
from search.report.markdown import markdown
from search.report.page import render
from search.study.winner.confirmation import ConfirmationRun
from search.study.winner.evaluation import BaselineRuns, ConfirmedTrial, evaluate_on_test
from search.tracking.run_content import search_content, trial_content
from search.tracking.run_descriptions import search_note, winner_note
from search.views.notebook_html import result_html
from search.views.summary import print_summary
from trainables.data.task import Task
from trainables.modalities.image.datasets import prepare
from trainables.serving.footprint import Footprint, Latency

SEEDS = 3


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return prepare("digits", image_size=(8, 8), directory=tmp_path_factory.mktemp("evaluation"))


class Engines:
    """Stands for the engines: each model is right on a share of the images that the test sets."""

    def __init__(self, labels: np.ndarray, wrong: Mapping[Path, int]) -> None:
        self.labels, self.wrong = labels, wrong

    def __call__(self, session: Any, jobs: Any) -> Any:
        from search.execution.engines.jobs import EvaluateServedModel, SplitClassification

        for key, job in jobs.items():
            classes, wrong = self.labels.copy(), self.wrong[job.model]
            classes[:wrong] = (classes[:wrong] + 1) % 10
            probability = np.full(len(classes), 0.9, np.float32)
            found = SplitClassification(classes, probability, probability)
            latency = Latency(1.0, 0.9, 1.1)
            cost = Footprint(1000, 100, 0.1, latency, latency, "a CPU")
            yield key, (found, cost) if isinstance(job, EvaluateServedModel) else found


def runs(folder: Path, name: str, accuracies: tuple[float, ...] = (0.9, 0.95, 0.92)) -> list[ConfirmationRun]:
    return [
        ConfirmationRun(100 + seed, folder / f"{name}-seed-{seed}.keras", accuracy, 0.3)
        for seed, accuracy in enumerate(accuracies)
    ]


def selection(chosen: int, probe: int = 0) -> Selection:
    def finalist(number: int, method: str, mean: float) -> Finalist:
        interval = Interval(mean, mean - 0.02, mean + 0.02)
        return Finalist(number, method, mean + 0.03, (mean,) * SEEDS, (mean,) * SEEDS, interval, (7, 8, 9))

    found = finalist(1, "finetune", 0.93), finalist(probe, "probe", 0.88)
    gain = Interval(0.05, 0.02, 0.08)
    return Selection("val_accuracy", "maximize", chosen, found, 200, (), chosen == probe, gain)


@pytest.fixture
def measured(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that measures a winner whose three models make 20, 30 and 40 mistakes."""

    def measure(refit: bool = True, winner: str = "finetune") -> Outcome:
        chosen = replace(trial(1), method=winner, number=0 if winner == "probe" else 1)
        own, scratch, probe = (runs(tmp_path, name) for name in ("winner", "scratch", "probe"))
        wrong = dict(zip([run.model for run in own], (20, 30, 40), strict=True))
        wrong |= dict(zip([run.model for run in scratch], (60, 70, 80), strict=True))
        wrong |= dict(zip([run.model for run in probe], (50, 50, 50), strict=True))
        labels = np.array(task.split("test").labels)
        monkeypatch.setattr("search.study.winner.evaluation.dispatch", Engines(labels, wrong))
        point = ConfirmedTrial(chosen, own, selection(chosen.number), 8 if refit else None)
        reference = None if winner == "probe" else BaselineRuns(replace(trial(0), method="probe"), probe, 1)
        session: Any = None
        [outcome] = evaluate_on_test(
            [point],
            [BaselineRuns(replace(trial(3), method="scratch"), scratch, 5)],
            lambda _: task,
            session,
            reference,
        )
        return outcome

    return measure


def images(task: Task) -> int:
    return len(task.split("test").labels)


def test_the_mean_over_seeds_is_measured_with_the_gains_over_probe_and_scratch(
    measured: Any, task: Task
) -> None:
    outcome, count = measured(), images(task)
    assert outcome.headline_accuracy is outcome.mean_test_accuracy
    assert outcome.mean_test_accuracy.estimate == pytest.approx(1 - 30 / count)
    assert outcome.mean_test_accuracy.low < outcome.test_accuracy.low
    assert outcome.gain.estimate == pytest.approx(40 / count)
    assert outcome.probe_gain.estimate == pytest.approx(20 / count)
    assert outcome.probe_gain.low < 20 / count < outcome.probe_gain.high
    assert outcome.probe.test_accuracies == pytest.approx((1 - 50 / count,) * SEEDS)
    assert not outcome.probe_won


def test_after_a_refit_the_first_training_is_registered(measured: Any, task: Task) -> None:
    outcome = measured()
    assert (outcome.refit, outcome.refit_epochs, outcome.registered) == (True, 8, 0)
    assert outcome.test_accuracy.estimate == pytest.approx(1 - 20 / images(task))
    assert outcome.model_file == "winner-seed-0.keras"
    assert outcome.val_accuracies == (0.93,) * SEEDS  # not those of images that were trained on


def test_without_a_refit_the_best_training_on_validation_images_is_registered(measured: Any) -> None:
    outcome = measured(refit=False)
    assert (outcome.refit, outcome.refit_epochs, outcome.registered) == (False, None, 1)
    assert outcome.model_file == "winner-seed-1.keras"
    assert outcome.val_accuracies == (0.9, 0.95, 0.92)


def test_a_probe_that_wins_has_no_gain_over_itself(measured: Any) -> None:
    outcome = measured(winner="probe")
    assert outcome.probe_won
    assert outcome.probe_gain is None
    assert outcome.probe.test_accuracies == outcome.seed_test_accuracies
    assert outcome.gain is not None


@pytest.mark.parametrize("winner", ["finetune", "probe"])
def test_an_outcome_is_read_as_it_was_written(measured: Any, winner: str) -> None:
    outcome = replace(measured(winner=winner), examples=())
    assert outcome_from_json(json.loads(json.dumps(outcome_to_json(outcome)))) == outcome


NEW = ("mean_test_accuracy", "registered", "selection", "refit", "refit_epochs")
NEW += ("probe", "probe_gain", "probe_won")


def test_an_outcome_of_an_earlier_version_shows_what_it_had() -> None:
    record = finished()
    known = record.outcome
    assert known is not None
    written = outcome_to_json(replace(known, examples=()))
    old = outcome_from_json({key: value for key, value in written.items() if key not in NEW})
    assert old.headline_accuracy == old.test_accuracy
    assert (old.registered, old.selection, old.refit, old.probe, old.probe_gain) == (
        None,
        None,
        False,
        None,
        None,
    )
    shown = replace(record, outcome=old)
    for text in (terminal(shown), markdown(shown), search_note(shown)):
        assert "95.4" in text
        assert "probe" not in text
        assert "registered" not in text
        assert "optimis" not in text


# All that shows the result


def record_of(outcome: Outcome, task: Task) -> SearchRecord:
    """The record of a search on the task on which the outcome was measured."""
    known = search()
    about = TaskSummary(task.name, task.digest, task.classes, task.counts, task.image_size, "digits")
    probe = replace(trial(0), method="probe", params={"unfreeze_depth": 0, "head_units": 0})
    return replace(known, task=about, trials=(probe, *known.trials[1:]), outcome=outcome)


def terminal(record: SearchRecord) -> str:
    buffer = io.StringIO()
    print_summary(record, None, Console(file=buffer, width=300))
    return buffer.getvalue()


def test_headline_gain_gate_mlflow_and_model_card_show_the_same_numbers(
    measured: Any, tmp_path: Path, task: Task
) -> None:
    outcome, count = measured(), images(task)
    record = record_of(outcome, task)
    mean, registered = 1 - 30 / count, 1 - 20 / count
    shown, gain, probe_gain = f"{100 * mean:.1f}", f"+{4000 / count:.1f}", f"+{2000 / count:.1f}"

    tiles = {tile.title: tile for tile in headline(record).tiles}
    assert tiles["Test accuracy"].figure == shown
    assert tiles["Transfer gain over scratch"].figure == gain
    assert tiles["Gain over the frozen probe"].figure == probe_gain
    texts = {
        "terminal": terminal(record),
        "markdown": markdown(record),
        "page": render(record),
        "notebook": result_html(record),
        "run": search_note(record),
        "model card": winner_note(record, outcome),
    }
    for place, text in texts.items():
        for number in (shown, gain, probe_gain):
            assert number in text, (place, number)
        if place != "notebook":
            assert f"{100 * registered:.1f}" in text, place

    tags = search_content(record).tags | version_tags(record, outcome, "digest")
    for tag, value in {
        "test_accuracy": mean,
        "registered_test_accuracy": registered,
        "gain": 40 / count,
        "probe_gain": 20 / count,
        "test_accuracy_low": outcome.mean_test_accuracy.low,
    }.items():
        assert float(tags[f"unfreeze.{tag}"]) == pytest.approx(value, abs=1e-6), tag
    metrics = {p.metric: p.value for p in trial_content(record, record.trials[1], "parent").points}
    assert metrics["test_accuracy"] == pytest.approx(mean)
    assert metrics["registered_test_accuracy"] == pytest.approx(registered)

    predictions = read_predictions(tmp_path / outcome.answers_file)
    decision = decide_promotion(GateCandidate("1", predictions), None)
    assert decision.accuracy == pytest.approx(mean)
    scratch = next(c for c in decision.comparisons if "scratch" in c.other)
    assert scratch.gain.estimate == pytest.approx(outcome.gain.estimate)
    assert scratch.gain.low == pytest.approx(outcome.gain.low)
    assert predictions.chosen == outcome.registered

    assert record_json(record)["outcome"]["test_accuracy"]["estimate"] == pytest.approx(mean)
    written = best_json(record, record.trials[1])["outcome"]
    assert written["mean_test_accuracy"]["estimate"] == pytest.approx(mean)


def test_the_verdict_on_the_probe_and_the_majority_rate_are_shown(measured: Any, task: Task) -> None:
    outcome = measured()
    record = record_of(outcome, task)
    rate = f"{100 * outcome.majority_accuracy:.1f}"
    for text in (
        terminal(record),
        markdown(record),
        render(record),
        search_note(record),
        result_html(record),
    ):
        assert "better than the frozen probe" in text.lower() or "better than the probe" in text.lower()
        assert rate in text

    won = measured(winner="probe")
    record = record_of(won, task)
    for text in (
        terminal(record),
        markdown(record),
        render(record),
        search_note(record),
        result_html(record),
    ):
        assert "probe is enough" in text
    assert search_content(record).tags["unfreeze.probe_is_enough"] == "true"


def test_the_optimism_of_validation_is_shown(measured: Any, task: Task) -> None:
    record = record_of(measured(), task)
    for text in (terminal(record), markdown(record), render(record)):
        assert "optimis" in text
        assert "+3.0" in text
    page = render(record)
    assert "How the winner was chosen" in page
    assert "mean over new seeds" in page
