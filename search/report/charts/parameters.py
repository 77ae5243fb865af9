"""Draw which parameters matter, and the objective against each parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from search.records.record import ParameterValue, SearchRecord, TrialRecord
from search.report.analysis.ranking import objective_domain, ranked, tones, winner
from search.report.analysis.wording import (
    format_metric,
    format_number,
    format_parameter,
    format_percent,
    join_words,
    label,
)
from search.report.charts.axes import (
    ACCENT,
    INK,
    PAPER,
    STAR_PATH,
    WINNER,
    is_logarithmic,
    log_ticks,
    tone_scale,
    value_axis,
)
from search.report.charts.figure import Figure, compiled, empty_figure, focus_param, when_focused
from search.report.charts.parallel_spec import MAX_NAMED_VALUES

SLICE_KEY = "slice"
TITLE = "Objective against each parameter"
HEIGHT = 190
MAX_SLICES = 12


def slices(record: SearchRecord) -> tuple[Figure, ...]:
    """Return a figure for each parameter that takes several values, the most important first."""
    trials = ranked(record)
    names = list(dict.fromkeys(name for t in trials for name in t.params))
    names.sort(key=lambda name: -record.importances.get(name, 0.0))
    varied = [name for name in names if len({t.params[name] for t in trials if name in t.params}) > 1]
    return tuple(_slice(record, trials, name, place) for place, name in enumerate(varied[:MAX_SLICES]))


def _slice(record: SearchRecord, trials: Sequence[TrialRecord], name: str, place: int) -> Figure:
    having = [t for t in trials if name in t.params]
    best = having[: max(1, len(having) // 4)]
    return Figure(
        key=f"{SLICE_KEY}-{place}",
        by_trial=True,
        title=label(name).capitalize(),
        standalone_title=f"{label(record.metric).capitalize()} by {label(name)}",
        caption=f"Best at {format_parameter(name, having[0].params[name])}; {_best_quarter(name, best)}",
        alternative=f"Scatter plot of {label(record.metric)} against {label(name)}. The best value, "
        f"{format_metric(record.metric, having[0].value)}, is at {format_parameter(name, having[0].params[name])}.",
        spec=compiled(_slice_chart(record, having, name), HEIGHT),
    )


def _best_quarter(name: str, best: Sequence[TrialRecord]) -> str:
    values = [t.params[name] for t in best]
    if _is_named(values):
        seen = sorted({format_number(value) for value in values})
        return f"the best quarter has {join_words(seen[:6])}"
    ordered = sorted(float(value) for value in values)
    return (
        f"the best quarter from {format_parameter(name, ordered[0])} to {format_parameter(name, ordered[-1])}"
    )


def _is_named(values: Sequence[ParameterValue]) -> bool:
    """Return whether values are better shown side by side than on a scale."""
    if any(isinstance(v, bool | str) for v in values):
        return True
    return all(isinstance(v, int) for v in values) and len(set(values)) <= MAX_NAMED_VALUES


def _slice_chart(record: SearchRecord, trials: Sequence[TrialRecord], name: str) -> Any:
    tone, won = tones(record), winner(record)
    values = [t.params[name] for t in trials]
    named = _is_named(values)
    rows = [
        {
            "trial": t.number,
            "at": format_number(t.params[name]) if named else t.params[name],
            "value": t.value,
            "tone": tone[t.number],
            "won": won is not None and t.number == won.number,
        }
        for t in reversed(trials)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=_x(name, values, named), y=value_axis(record, objective_domain(record)).title(None)
    )
    marks = base.mark_point(filled=True, opacity=0.9, stroke=PAPER, strokeWidth=0.6)
    others = marks.transform_filter("!datum.won").encode(
        fill=alt.Fill("tone:O", scale=tone_scale(), legend=None), size=when_focused(220, alt.value(60))
    )
    star = base.transform_filter("datum.won").mark_point(
        filled=True, shape=STAR_PATH, fill=WINNER, stroke=PAPER, strokeWidth=1, opacity=1
    )
    return alt.layer(others, star.encode(size=when_focused(360, alt.value(200)))).add_params(focus_param())


def _x(name: str, values: Sequence[ParameterValue], named: bool) -> Any:
    if named:
        texts = any(isinstance(v, str) for v in values)
        order = [format_number(v) for v in sorted(set(values), key=str if texts else float)]
        axis = alt.Axis(labelAngle=0, labelLimit=80, labelPadding=7, ticks=False, grid=False)
        return alt.X("at:N", title=None, axis=axis, scale=alt.Scale(domain=order, padding=0.6))
    numbers = [float(v) for v in values]
    if is_logarithmic(name, values):
        # A factor, not a difference: the axis is logarithmic.
        low, high = min(numbers) / 1.2, max(numbers) * 1.2
        scale = alt.Scale(type="log", domain=[low, high], nice=False)
        axis = alt.Axis(format=".1~e", values=log_ticks(low, high), labelOverlap=True, grid=False)
        return alt.X("at:Q", title=None, scale=scale, axis=axis)
    margin = 0.04 * (max(numbers) - min(numbers))
    scale = alt.Scale(domain=[min(numbers) - margin, max(numbers) + margin], nice=False, zero=False)
    return alt.X("at:Q", title=None, scale=scale, axis=alt.Axis(format=".3~g", tickCount=4, grid=False))


KEY = "importance"
MAX_BARS = 20
AXIS_STRETCH = 1.9
"""Length of the axis relative to the longest line: the text next to it has to fit on a phone."""


@dataclass(frozen=True)
class Share:
    """A parameter's share of the differences; ``low`` and ``high`` are None if no interval is known."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def text(self) -> str:
        """The share with its interval, as in ``60 % (31 to 82)``."""
        words = format_percent(self.value, 0 if self.value >= 0.01 or self.value == 0 else 1)
        if self.low is None or self.high is None:
            return words
        return f"{words} ({100 * self.low:.0f} to {100 * self.high:.0f})"


def importance(record: SearchRecord) -> Figure:
    """Draw the share of the differences between trials that each parameter explains."""
    known = shares(record)
    if not known:
        return empty_figure(
            KEY,
            "Importance of the parameters",
            "Importances need several finished trials with different values; there are too few.",
        )
    return Figure(
        key=KEY,
        title=_title(known),
        caption="Each parameter's share in the differences between the best trials and the others (PED-ANOVA), "
        "estimated from all trials with a value. Lines are 95 % bootstrap intervals over trials: where they overlap, "
        "the order is uncertain.",
        alternative=f"Bar chart of parameter importance: {join_words([f'{label(s.name)} {s.text}' for s in known])}.",
        spec=compiled(_chart(known), 34 * len(known) + 20),
    )


def shares(record: SearchRecord) -> list[Share]:
    """Return the shares, the greatest first; they sum to 1 unless some are left out."""
    known = {name: max(v, 0.0) for name, v in record.importances.items() if math.isfinite(v)}
    total = sum(known.values())
    if total <= 0:
        return []
    found = [_share(record, name, value / total) for name, value in known.items()]
    return sorted(found, key=lambda share: (-share.value, share.name))[:MAX_BARS]


def _share(record: SearchRecord, name: str, value: float) -> Share:
    interval = record.importance_intervals.get(name)
    if interval is None:
        return Share(name, value)
    return Share(name, value, min(interval.low, value), max(interval.high, value))


def _title(known: list[Share]) -> str:
    first, *others = known
    name, share = label(first.name), format_percent(first.value, 0)
    if first.low is None or not others:
        return f"{name.capitalize()} mattered most: {share} of the differences"
    if first.low > others[0].value:
        least = format_percent(first.low, 0)
        return f"{name.capitalize()} mattered most: {share} of the differences, at least {least}"
    return f"{name.capitalize()} seems to matter most ({share}), but there are too few trials to be sure"


def _chart(known: list[Share]) -> Any:
    rows = [
        {"name": label(s.name), "share": s.value, "low": s.low, "high": s.high, "text": s.text} for s in known
    ]
    reach = max(s.high if s.high is not None else s.value for s in known)
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelColor=INK)),
        x=alt.X("share:Q", title=None, axis=None, scale=alt.Scale(domain=[0, reach * AXIS_STRETCH])),
    )
    bars = base.mark_bar(
        height=14, fill=ACCENT, cornerRadiusEnd=2, opacity=1 if known[0].low is None else 0.6
    )
    spans = base.transform_filter("datum.low !== null")
    lines = spans.mark_rule(stroke=INK, strokeWidth=1.5).encode(x="low:Q", x2="high:Q")
    end = base.transform_calculate(end="datum.high === null ? datum.share : datum.high")
    texts = end.mark_text(align="left", dx=8, fill=INK).encode(x="end:Q", text="text:N")
    return alt.layer(bars, lines, texts).add_params(focus_param())
