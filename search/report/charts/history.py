"""Draw how the best value developed, trial by trial."""

from __future__ import annotations

from typing import Any

import altair as alt

from search.records.formatting import plural
from search.records.record import SearchRecord
from search.report.analysis.ranking import best_so_far, objective_domain, ranked, still_improving, winner
from search.report.analysis.wording import format_metric, label
from search.report.charts.axes import (
    INK,
    PAPER,
    STAR_PATH,
    STATE_COLOURS,
    STATE_SHAPES,
    WINNER,
    WRONG,
    trial_axis,
    value_axis,
)
from search.report.charts.figure import Figure, compiled, empty_figure, focus_param, when_focused

KEY = "history"
HEIGHT = 300


def history(record: SearchRecord) -> Figure:
    """Draw every trial's value in the order of the trials, with the best so far."""
    order = ranked(record)
    if not order:
        return empty_figure(KEY, "Every trial's value", "No trial has reached a value yet.")
    domain = objective_domain(record)
    layers = [
        _best_line(record, domain),
        *_points(record, domain),
        *_failures(record),
        *_winner(record, domain),
    ]
    chart = alt.layer(*layers).add_params(focus_param())
    return Figure(
        key=KEY,
        by_trial=True,
        title=_title(record),
        caption=_caption(record, domain),
        alternative=_alternative(record),
        spec=compiled(chart, HEIGHT),
    )


def _title(record: SearchRecord) -> str:
    finished = [t.number for t in record.trials if t.finished]
    best_number, best_value = best_so_far(record)[-1]
    after = sum(number > best_number for number in finished)
    best = format_metric(record.metric, best_value)
    if len(finished) < 2:
        return f"One trial so far: it reached {best}"
    if still_improving(record):
        return f"Still improving when it ended: {best} was reached by trial {best_number}, one of the last"
    later = "the later trial is not" if after == 1 else f"none of the {after:,} later trials is"
    return f"Trial {best_number} reached {best}; {later} better"


def _caption(record: SearchRecord, domain: tuple[float, float]) -> str:
    better = "higher" if record.direction == "maximize" else "lower"
    outside = sum(not domain[0] <= (t.value or 0.0) <= domain[1] for t in ranked(record))
    words = f"Each mark is a trial ({better} is better); the line is the best so far."
    if outside:
        edge = "lower" if record.direction == "maximize" else "upper"
        words += f" {plural(outside, 'mark')} far from the others {'is' if outside == 1 else 'are'}"
        words += f" drawn on the {edge} edge."
    return words


def _alternative(record: SearchRecord) -> str:
    steps = ", ".join(
        f"{format_metric(record.metric, value)} at trial {n}" for n, value in best_so_far(record)
    )
    return f"Line chart of the best {label(record.metric)} so far: {steps}."


def _best_line(record: SearchRecord, domain: tuple[float, float]) -> Any:
    steps = [{"trial": number, "value": value} for number, value in best_so_far(record)]
    last = max(t.number for t in record.trials)
    steps.append({"trial": last, "value": steps[-1]["value"]})
    line = alt.Chart(alt.Data(values=steps)).mark_line(
        interpolate="step-after", stroke=INK, strokeWidth=1.5, opacity=0.55
    )
    return line.encode(x=trial_axis(record), y=value_axis(record, domain))


def _points(record: SearchRecord, domain: tuple[float, float]) -> list[Any]:
    rows = [{"trial": t.number, "value": t.value, "state": t.state} for t in ranked(record)]
    states = [state for state in STATE_COLOURS if any(t.state == state for t in record.trials)]
    colours = alt.Scale(domain=states, range=[STATE_COLOURS[s] for s in states])
    shapes = alt.Scale(domain=states, range=[STATE_SHAPES[s] for s in states])
    marks = alt.Chart(alt.Data(values=rows)).mark_point(
        filled=True, opacity=0.95, stroke=PAPER, strokeWidth=0.8
    )
    return [
        marks.encode(
            x=trial_axis(record),
            y=value_axis(record, domain),
            fill=alt.Fill("state:N", scale=colours, title=None),
            shape=alt.Shape("state:N", scale=shapes, title=None),
            size=when_focused(220, alt.value(70)),
        )
    ]


def _failures(record: SearchRecord) -> list[Any]:
    rows = [
        {"trial": t.number} for t in record.trials if t.finished and (t.value is None or t.state == "failed")
    ]
    if not rows:
        return []
    marks = alt.Chart(alt.Data(values=rows)).mark_point(
        filled=True, shape="cross", fill=WRONG, angle=45, opacity=1
    )
    return [
        marks.encode(x=trial_axis(record), y=alt.value(HEIGHT - 8), size=when_focused(220, alt.value(80)))
    ]


def _winner(record: SearchRecord, domain: tuple[float, float]) -> list[Any]:
    trial = winner(record)
    if trial is None or trial.value is None:
        return []
    caption = f"trial {trial.number}, {format_metric(record.metric, trial.value)}"
    rows = [{"trial": trial.number, "value": trial.value, "caption": caption}]
    base = alt.Chart(alt.Data(values=rows)).encode(x=trial_axis(record), y=value_axis(record, domain))
    star = base.mark_point(
        filled=True, shape=STAR_PATH, size=280, fill=WINNER, stroke=PAPER, strokeWidth=1, opacity=1
    )
    above = record.direction == "maximize"
    text = base.mark_text(dy=-15 if above else 17, fontWeight=600, fill=INK).encode(text="caption:N")
    return [star, text]
