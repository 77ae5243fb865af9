"""Draw the best value over time: what a shorter search would have found."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from search.records.record import SearchRecord
from search.records.units import format_duration
from search.report.analysis.ranking import loss_key, readable_domain
from search.report.analysis.timeline import EpochEnd, Timeline, improvements, timeline
from search.report.analysis.wording import format_metric, label
from search.report.charts.axes import ACCENT, MUTED, PAPER, value_format
from search.report.charts.figure import Figure, compiled, empty_figure, focus_param, when_focused

KEY = "anytime"
TITLE = "The best value over time"
HEIGHT = 260
MAX_POINTS = 3000
_UNITS = ((7200.0, 3600.0, "hours"), (180.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))
"""(minimum length, seconds per unit, name of the unit)."""


def anytime_curve(record: SearchRecord) -> Figure:
    """Draw the best value so far against the time since the first trial started."""
    known = timeline(record)
    steps = improvements(record, known)
    if not steps:
        return empty_figure(KEY, TITLE, "No epoch has ended yet.")
    return Figure(
        key=KEY,
        by_trial=True,
        title=_title(record, known, steps),
        caption=_caption(known),
        alternative=_alternative(record, steps),
        spec=compiled(_chart(record, known, steps), HEIGHT),
    )


def _title(record: SearchRecord, known: Timeline, steps: list[EpochEnd]) -> str:
    best = steps[-1]
    after = known.length - best.seconds
    reached = f"The best value, {format_metric(record.metric, best.value)}, was reached after {_duration(best.seconds)}"
    if after > 0.2 * known.length:
        return f"{reached}; no trial in the {_duration(after)} after that was better"
    return reached


def _duration(seconds: float) -> str:
    return format_duration(seconds) if seconds >= 0.5 else "less than a second"


def _caption(known: Timeline) -> str:
    words = "The best value of any epoch so far: what the search would have found if it had been stopped at that time. "
    words += "Dots are the epochs of all trials."
    if known.paused:
        words += f" Pauses without any running trial ({format_duration(known.paused)} in all) are left out."
    return words


def _alternative(record: SearchRecord, steps: list[EpochEnd]) -> str:
    phrases = [
        f"{format_metric(record.metric, s.value)} after {_duration(s.seconds)} (trial {s.trial})"
        for s in steps[-8:]
    ]
    return f"Line chart of the best {label(record.metric)} so far against time: {', '.join(phrases)}."


def _chart(record: SearchRecord, known: Timeline, steps: list[EpochEnd]) -> Any:
    scale, unit = next((s, name) for least, s, name in _UNITS if known.length >= least)
    x = alt.X("time:Q", title=f"{unit} since the first trial began").scale(
        domain=[0, max(known.length, steps[-1].seconds, 1e-3) / scale], nice=False
    )
    x = x.axis(tickCount=8, grid=False)
    low, high = _domain(record, known, steps)
    y = alt.Y("value:Q", title=label(record.metric)).scale(
        domain=[low, high], nice=False, zero=False, clamp=True
    )
    y = y.axis(format=value_format(record), tickCount=5)
    line_rows = [_row(step, scale) for step in steps]
    # Extend the last step to the end of the search.
    line_rows.append({**line_rows[-1], "time": max(known.length, steps[-1].seconds) / scale})
    # Thousands of dots would make the page slow; every n-th one shows the same picture.
    step_size = math.ceil(len(known.moments) / MAX_POINTS)
    rows = [_row(m, scale) for m in known.moments[::step_size] if _inside(m.value, low, high)]
    dots = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, fill=MUTED, opacity=0.45, strokeWidth=0)
    best = alt.Chart(alt.Data(values=line_rows)).mark_line(
        interpolate="step-after", stroke=ACCENT, strokeWidth=2.5
    )
    marks = alt.Chart(alt.Data(values=line_rows[:-1])).mark_point(
        filled=True, fill=ACCENT, stroke=PAPER, strokeWidth=1, opacity=1
    )
    return alt.layer(
        dots.encode(x=x, y=y, size=when_focused(120, alt.value(14))),
        best.encode(x=x, y=y),
        marks.encode(x=x, y=y, size=when_focused(240, alt.value(70))),
    ).add_params(focus_param())


def _domain(record: SearchRecord, known: Timeline, steps: list[EpochEnd]) -> tuple[float, float]:
    """Return limits that cover the better half of all values and improvements: first epochs say little."""
    values = sorted((m.value for m in known.moments), key=lambda value: loss_key(record, value))
    low, high = readable_domain(record, values[: max(2, math.ceil(len(values) / 2))])
    later = [step.value for step in steps[len(steps) // 2 :]]
    return min(low, *later), max(high, *later)


def _inside(value: float, low: float, high: float) -> bool:
    return low <= value <= high


def _row(moment: EpochEnd, scale: float) -> dict[str, Any]:
    return {"trial": moment.trial, "time": round(moment.seconds / scale, 5), "value": round(moment.value, 5)}
