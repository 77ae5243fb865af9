"""Draw the Pareto front of a search with several objectives: the first objective against the second."""

from __future__ import annotations

from typing import Any

import altair as alt

from search.records.formatting import objective_phrase, plural
from search.records.record import SearchRecord, TrialRecord
from search.report.analysis.ranking import objective_domain, ranked
from search.report.analysis.wording import format_metric, join_words, label
from search.report.charts.axes import ACCENT, INK, MUTED, PAPER, WINNER, value_axis
from search.report.charts.figure import Figure, compiled, empty_figure, focus_param, when_focused

KEY = "front"
TITLE = "The Pareto front"
HEIGHT = 320
LABELS = 12
"""Number of points of the front that are labelled with their trial."""


def front(record: SearchRecord) -> Figure:
    """Draw every trial by its first two objectives, with the front as a line."""
    if not record.objectives:
        return empty_figure(KEY, TITLE, "The search had one objective.")
    if not record.front:
        return empty_figure(KEY, TITLE, "No trial is complete yet: only those can be points of the front.")
    return Figure(
        key=KEY,
        by_trial=True,
        title=_title(record),
        caption=_caption(record),
        alternative="Points of the front: "
        f"{join_words([_in_words(record, trial) for trial in record.front[:LABELS]])}.",
        spec=compiled(_chart(record), HEIGHT),
        legend=(("on the front", WINNER), ("complete, dominated", ACCENT), ("stopped early", MUTED)),
    )


def _title(record: SearchRecord) -> str:
    first, last = record.front[0], record.front[-1]
    if len(record.front) == 1 or _in_words(record, first) == _in_words(record, last):
        return f"One point dominates all others: {_in_words(record, first)}"
    count = plural(len(record.front), "point")
    return f"{count} to choose from: {_in_words(record, first)} … {_in_words(record, last)}"


def _in_words(record: SearchRecord, trial: TrialRecord) -> str:
    values = [_value(name, trial.objectives[name]) for name in record.objectives]
    return f"{', '.join(values)} (trial {trial.number})"


def _value(name: str, value: float) -> str:
    phrase = objective_phrase(name, value)
    return f"{format_metric(name, value)} {label(name)}" if phrase.startswith(name) else phrase


def _caption(record: SearchRecord) -> str:
    words = "No other trial is as good as a point of the front in every objective and better in one."
    if len(record.objectives) > 2:
        more = join_words([label(name) for name in record.objectives[2:]])
        words += f" Not drawn: {more}, so a point may look dominated although it is not."
    confirmed = [o.trial for o in (record.outcome, *record.alternatives) if o is not None]
    if record.outcome is not None:
        which = join_words([str(number) for number in confirmed])
        words += (
            f" Trained again and registered: {'trial' if len(confirmed) == 1 else 'trials'} {which}; all of them "
            "were measured in one pass over the test images."
        )
    return words


def _chart(record: SearchRecord) -> alt.LayerChart:
    domain = objective_domain(record)
    comparable = [_row(record, t) for t in ranked(record) if record.objectives[1] in t.objectives]
    points = [_row(record, t) for t in record.front]
    steps = sorted(points, key=lambda row: row["cost"])
    # A step line shows the best value that is available at each cost; a straight line would promise values in
    # between.
    line = _base(record, steps, domain).mark_line(
        interpolate="step-after", stroke=WINNER, strokeWidth=1.5, opacity=0.7
    )
    colours = alt.when("datum.state === 'complete'").then(alt.value(ACCENT)).otherwise(alt.value(MUTED))
    others = _base(record, [row for row in comparable if not row["front"]], domain).mark_point(
        filled=True, opacity=0.85, stroke=PAPER, strokeWidth=0.8
    )
    best = _base(record, points, domain).mark_point(
        filled=True, opacity=1, fill=WINNER, stroke=PAPER, strokeWidth=1
    )
    layers = [
        line,
        others.encode(fill=colours, size=when_focused(220, alt.value(60))),
        best.encode(size=when_focused(260, alt.value(130))),
    ]
    texts = _base(record, points[:LABELS], domain).mark_text(align="left", dx=9, dy=-9, fill=INK)
    return alt.layer(*layers, texts.encode(text="trial:N")).add_params(focus_param())


def _base(record: SearchRecord, rows: list[dict[str, Any]], domain: tuple[float, float]) -> alt.Chart:
    second = record.objectives[1]
    return alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "cost:Q", title=label(second), scale=alt.Scale(zero=False, padding=18), axis=alt.Axis(tickCount=6)
        ),
        y=value_axis(record, domain),
    )


def _row(record: SearchRecord, trial: TrialRecord) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "value": trial.objectives.get(record.metric, trial.value),
        "cost": trial.objectives[record.objectives[1]],
        "state": trial.state,
        "front": trial.number in record.front_numbers,
    }
