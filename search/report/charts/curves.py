"""Draw the learning curves of all trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from search.records.formatting import plural
from search.records.record import SearchRecord, TrialRecord
from search.report.analysis.ranking import readable_domain, tones, winner
from search.report.analysis.wording import format_percent, label
from search.report.charts.axes import PAPER, WINNER, tone_scale, value_format, whole_numbers
from search.report.charts.figure import Figure, compiled, empty_figure, focus_param
from trainables.epoch_metrics import EpochMetrics

KEY = "curves"
HEIGHT = 340
MAX_POINTS = 12_000
"""Maximum number of points of all curves together: more would make the page slow and large."""


def curves(record: SearchRecord) -> Figure:
    """Draw the objective after every epoch, one line per trial."""
    rows = _rows(record)
    if not rows:
        return empty_figure(KEY, "Learning curves", "No trial has reported an epoch yet.")
    lines = plural(len({row["trial"] for row in rows}), "learning curve")
    epochs = plural(max(row["epoch"] for row in rows), "epoch")
    return Figure(
        key=KEY,
        by_trial=True,
        title=_title(record),
        caption="One line per trial, up to its last epoch; trials that were stopped early are faint. Point at a "
        "line to highlight the trial in the other charts.",
        alternative=f"{lines} of {label(record.metric)} over at most {epochs}. {_title(record)}.",
        spec=_clipped_at_once(compiled(_chart(record, rows), HEIGHT)),
        tones=("worst trial", "best trial"),
    )


def _title(record: SearchRecord) -> str:
    finished = [t for t in record.trials if t.finished]
    pruned = [t for t in finished if t.state == "pruned"]
    share = f"{len(pruned)} of {plural(len(finished), 'trial')}"
    if not pruned:
        return "No trial was stopped early"
    whole = [record.planned_epochs(t.method) for t in finished]
    if None in whole:
        return f"{share} were stopped early"
    planned = [epochs or 0 for epochs in whole]
    left = (max(n - len(t.epochs), 0) for n, t in zip(planned, finished, strict=True) if t.state == "pruned")
    saved = sum(left) / sum(planned)
    return f"Stopping {share} early saved {format_percent(saved, 0)} of the epochs"


def _chart(record: SearchRecord, rows: list[dict[str, Any]]) -> Any:
    looks = alt.LookupData(alt.Data(values=_looks(record)), "trial", ["tone", "faint", "won"])
    base = alt.Chart(alt.Data(values=rows)).transform_lookup(lookup="trial", from_=looks)
    base = base.encode(**_position(record, rows))
    lines = base.mark_line(clip=True, strokeJoin="round").encode(
        detail="trial:N",
        stroke=_colour(alt.Stroke),
        strokeOpacity=alt.when("datum.trial === focus || datum.won")
        .then(alt.value(1))
        .when("datum.faint")
        .then(alt.value(0.35))
        .otherwise(alt.value(0.85)),
        strokeWidth=alt.when("datum.trial === focus")
        .then(alt.value(4.5))
        .when("datum.won")
        .then(alt.value(3))
        .otherwise(alt.value(1.5)),
    )
    ends = base.transform_filter("datum.end").mark_point(
        clip=True, filled=True, opacity=1, stroke=PAPER, strokeWidth=0.6
    )
    dots = ends.encode(
        fill=_colour(alt.Fill),
        size=alt.when("datum.trial === focus || datum.won").then(alt.value(110)).otherwise(alt.value(30)),
    )
    return alt.layer(lines, dots).add_params(focus_param())


def _clipped_at_once(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Replace the clip of each line by one clip around all of them, which draws much faster."""
    size = {"width": {"signal": "width"}, "height": {"signal": "height"}}
    group = {
        "type": "group",
        "clip": True,
        "encode": {"update": size},
        "marks": _without_clips(spec["marks"]),
    }
    return {**spec, "marks": [group]}


def _without_clips(marks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    bare = [{name: part for name, part in mark.items() if name != "clip"} for mark in marks]
    return [{**mark, "marks": _without_clips(mark["marks"])} if "marks" in mark else mark for mark in bare]


def _position(record: SearchRecord, rows: list[dict[str, Any]]) -> dict[str, Any]:
    longest = max(max(row["epoch"] for row in rows), 2)
    margin = 0.012 * longest
    low, high = readable_domain(record, [row["value"] for row in rows], usual=0.75)
    return {
        "x": alt.X("epoch:Q", title="epoch")
        .scale(domain=[1 - margin, longest + margin], nice=False, zero=False)
        .axis(whole_numbers(1, longest)),
        "y": alt.Y("value:Q", title=label(record.metric))
        .scale(domain=[low, high], nice=False, zero=False)
        .axis(format=value_format(record), tickCount=6),
    }


def _colour(channel: Any) -> Any:
    by_rank = channel("tone:O", scale=tone_scale(), legend=None)
    return alt.when("datum.won").then(alt.value(WINNER)).otherwise(by_rank)


def _looks(record: SearchRecord) -> list[dict[str, Any]]:
    tone = tones(record)
    won = winner(record)
    return [
        {
            "trial": t.number,
            "tone": tone.get(t.number, 0),
            "faint": t.state in ("pruned", "failed"),
            "won": won is not None and t.number == won.number,
        }
        for t in record.trials
    ]


def _rows(record: SearchRecord) -> list[dict[str, Any]]:
    max_rows = max(20, MAX_POINTS // max(len(record.trials), 1))
    return [row for trial in record.trials for row in _curve(record, trial, max_rows)]


def _curve(record: SearchRecord, trial: TrialRecord, max_rows: int) -> list[dict[str, Any]]:
    known = [e for e in trial.epochs if math.isfinite(e.metric(record.metric))]
    rows: list[dict[str, Any]] = [
        {"trial": trial.number, "epoch": e.epoch, "value": round(e.metric(record.metric), 5)}
        for e in _thinned(known, max_rows)
    ]
    if rows:
        rows[-1]["end"] = True
    return rows


def _thinned(epochs: Sequence[EpochMetrics], max_epochs: int) -> list[EpochMetrics]:
    """Return at most ``max_epochs`` evenly spaced epochs, including the first and the last."""
    if len(epochs) <= max_epochs:
        return list(epochs)
    step = (len(epochs) - 1) / (max_epochs - 1)
    return [epochs[round(place * step)] for place in range(max_epochs)]
