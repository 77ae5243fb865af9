"""The report's figures contain the right data, according to their specifications."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from example_records import STARTED, curve, finished, search, trial

from search.records.record import Calibration, CalibrationBin, Interval, SearchRecord, TrialRecord
from search.report.analysis.ranking import loss_key
from search.report.analysis.timeline import improvements, timeline
from search.report.charts.anytime import anytime_curve
from search.report.charts.axes import STAGE_RANGE
from search.report.charts.calibration import calibration
from search.report.charts.figure import Figure
from search.report.charts.history import history
from search.report.charts.parameters import importance, slices
from search.report.charts.stages import STACKING_ORDER
from search.report.figures import figures
from trainables.cost_account import STAGES


def rows(figure: Figure, field: str) -> list[dict[str, Any]]:
    """Return the rows of every data set of ``figure`` that has ``field``."""
    assert figure.spec is not None
    sets = [part["values"] for part in figure.spec["data"] if part.get("values")]
    return [row for values in sets for row in values if field in row]


def shuffled(direction: Any) -> SearchRecord:
    """Return forty trials at random times, some without an end, some without a start, some diverged."""
    rng = random.Random(4)
    trials = []
    for known in (trial(number) for number in range(40)):
        begun = STARTED + timedelta(seconds=rng.uniform(0, 300))
        ended = begun + timedelta(seconds=rng.uniform(1, 60))
        epochs = tuple(replace(e, val_accuracy=rng.choice([rng.random(), math.nan])) for e in known.epochs)
        moved = replace(known, started=begun, ended=ended, epochs=epochs)
        moved = replace(moved, ended=None, state="running") if known.number % 8 == 1 else moved
        trials.append(replace(moved, started=None) if known.number % 9 == 2 else moved)
    return replace(search(), trials=tuple(trials), direction=direction)


def test_every_figure_follows_the_schema_and_is_the_same_unchecked() -> None:
    record = finished()
    checked, drawn = figures(record, checked=True), figures(record)
    assert drawn == checked
    assert sum(figure.spec is not None for figure in drawn.values()) > 8


def test_learning_curves_are_clipped_at_once() -> None:
    spec = figures(finished())["curves"].spec
    assert spec is not None
    (group,) = spec["marks"]
    assert group["clip"]
    assert '"clip"' not in json.dumps(group["marks"])
    assert len(group["marks"]) == 2


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_anytime_curve_only_gets_better_and_ends_at_the_best_epoch(direction: Any) -> None:
    record = shuffled(direction)
    known = timeline(record)
    steps = improvements(record, known)
    assert len(steps) > 3
    assert [s.seconds for s in steps] == sorted(s.seconds for s in steps)
    worth = [loss_key(record, s.value) for s in steps]
    assert worth == sorted(worth, reverse=True)
    assert len(set(worth)) == len(worth)
    seen = [
        e.val_accuracy
        for t in record.trials
        if t.started and t.state != "failed"
        for e in t.epochs
        if math.isfinite(e.val_accuracy)
    ]
    assert len(known.moments) == len(seen)
    assert steps[-1].value == (max(seen) if direction == "maximize" else min(seen))
    assert 0 <= known.moments[0].seconds <= known.moments[-1].seconds <= known.length


def placed(number: int, begun: float, ended: float, trained: float, value: float) -> TrialRecord:
    """Return a trial with two epochs of equal length."""
    epochs = tuple(replace(e, epoch_seconds=trained / 2, val_accuracy=value) for e in curve(0.5, 2))
    begin, end = (STARTED + timedelta(seconds=s) for s in (begun, ended))
    return replace(trial(number), epochs=epochs, started=begin, ended=end, stages={}, state="complete")


def test_epochs_share_the_time_between_a_trial_s_beginning_and_its_end() -> None:
    known = timeline(replace(search(), trials=(placed(0, 5, 15, 6, 0.5), placed(1, 10, 20, 10, 0.7))))
    assert [m.seconds for m in known.moments] == [5, 10, 10, 15]
    assert (known.length, known.paused) == (15, 0)


def test_pauses_are_left_out_and_mentioned() -> None:
    hours = 3600.0
    night = placed(1, 8, 10 * hours + 4, 8, 0.7)  # interrupted and taken up again ten hours later
    later = placed(2, 10 * hours + 4, 10 * hours + 14, 10, 0.9)
    record = replace(search(), trials=(placed(0, 0, 10, 10, 0.5), night, later))
    known = timeline(record)
    assert known.paused == pytest.approx(10 * hours - 14)
    assert known.length == pytest.approx(28)
    assert improvements(record, known)[-1].seconds == pytest.approx(23)
    assert "9h 59m in all) are left out" in anytime_curve(record).caption


def test_history_shows_the_pruned_trials_where_they_ended() -> None:
    drawn = {row["trial"]: row for row in rows(history(finished()), "state")}
    pruned = {t.number: t.value for t in search().trials if t.state == "pruned"}
    assert pruned
    assert {n: row["value"] for n, row in drawn.items() if row["state"] == "pruned"} == pruned


def test_importance_shows_its_intervals_and_says_when_the_order_is_uncertain() -> None:
    intervals = {
        "learning_rate": Interval(0.6, 0.2, 0.8),
        "unfreeze_depth": Interval(0.3, 0.1, 0.5),
        "head_units": Interval(0.1, 0.0, 0.3),
    }
    unsure = importance(finished(importance_intervals=intervals))
    assert "too few trials to be sure" in unsure.title
    assert "60\u202f% (20 to 80)" in unsure.alternative
    assert {(row["low"], row["high"]) for row in rows(unsure, "low")} == {
        (i.low, i.high) for i in intervals.values()
    }
    sure = intervals | {"learning_rate": Interval(0.6, 0.45, 0.8)}
    assert "Learning rate mattered most" in importance(finished(importance_intervals=sure)).title
    assert "mattered most" in importance(finished()).title  # intervals are not known


def test_slices_have_each_trial_once_by_importance() -> None:
    record = finished()
    drawn = slices(record)
    assert [figure.title for figure in drawn][:3] == ["Learning rate", "Unfreeze depth", "Head units"]
    ratio = next(figure for figure in drawn if figure.title == "Backbone lr ratio")
    having = {t.number for t in record.trials if t.value is not None and "backbone_lr_ratio" in t.params}
    assert sorted(row["trial"] for row in rows(ratio, "at")) == sorted(having)
    constant = replace(
        record, trials=tuple(replace(t, params={**t.params, "head_units": 8}) for t in record.trials)
    )
    assert "Head units" not in [figure.title for figure in slices(constant)]


def calibrated(error: Interval, excess: Interval, by_chance: float) -> Figure:
    known = finished()
    assert known.outcome is not None
    bins = (
        CalibrationBin(0.8, 0.9, 60, 0.86, Interval(0.7, 0.6, 0.8)),
        CalibrationBin(0.9, 1, 40, 0.99, Interval(0.95, 0.9, 1)),
    )
    found = Calibration(bins, error, by_chance, excess, 0.3)
    return calibration(replace(known, outcome=replace(known.outcome, calibration=found)))


def test_the_reliability_diagram_draws_each_step_with_its_interval() -> None:
    drawn = calibrated(Interval(0.12, 0.08, 0.15), Interval(0.1, 0.06, 0.14), 0.05)
    found = rows(drawn, "images")
    assert [(r["certain"], r["right"], r["low"], r["high"], r["images"]) for r in found] == [
        (0.86, 0.7, 0.6, 0.8, 60),
        (0.99, 0.95, 0.9, 1, 40),
    ]
    assert "Expected calibration error: 12.0 points (95 % interval 8.0 to 15.0)" in drawn.caption
    assert "may show 5.0" in drawn.caption


@pytest.mark.parametrize(
    ("excess", "by_chance", "words"),
    [
        (Interval(0.1, 0.06, 0.14), 0.05, "overconfident: by 10.0 points"),
        (Interval(-0.1, -0.14, -0.06), 0.05, "underconfident: by 10.0 points"),
        (Interval(0.01, -0.03, 0.05), 0.05, "off by 12.0 points on average"),
        (Interval(0.1, 0.06, 0.14), 0.2, "are calibrated, as far as 100 images can tell"),
    ],
)
def test_calibration_is_described(excess: Interval, by_chance: float, words: str) -> None:
    assert words in calibrated(Interval(0.12, 0.08, 0.15), excess, by_chance).title


def test_a_winner_of_an_earlier_version_has_no_calibration() -> None:
    known = finished()
    assert known.outcome is not None
    drawn = calibration(replace(known, outcome=replace(known.outcome, calibration=None)))
    assert drawn.spec is None
    assert "earlier version" in drawn.caption


def test_every_stage_of_a_trial_has_a_colour_of_its_own() -> None:
    assert set(STACKING_ORDER) == {*STAGES, "tracking"}
    assert len(STACKING_ORDER) <= len(STAGE_RANGE)
