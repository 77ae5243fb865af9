"""The objective against each parameter by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from search.records.record import ParameterValue, SearchRecord, TrialRecord
from search.report.analysis.ranking import objective_domain, ranked, tones, winner
from search.report.analysis.wording import label, listing, number, objective, parameter
from search.report.charts.axes import is_logarithmic, log_ticks, tone_scale, value_axis
from search.report.charts.figure import Figure, compiled, focus_param, when_focused
from search.report.charts.parallel_axes import MOST_NAMED
from search.report.theme import PAPER, STAR, WINNER

KEY = "slice"
TITLE = "Each parameter by itself"
HEIGHT = 190
MOST = 12


def slices(record: SearchRecord) -> tuple[Figure, ...]:
    """A figure for each parameter that takes several values, the most important first; none without trials."""
    trials = ranked(record)
    names = list(dict.fromkeys(name for t in trials for name in t.params))
    names.sort(key=lambda name: -record.importances.get(name, 0.0))
    varied = [name for name in names if len({t.params[name] for t in trials if name in t.params}) > 1]
    return tuple(_slice(record, trials, name, place) for place, name in enumerate(varied[:MOST]))


def _slice(record: SearchRecord, trials: Sequence[TrialRecord], name: str, place: int) -> Figure:
    having = [t for t in trials if name in t.params]
    best = having[: max(1, len(having) // 4)]
    return Figure(
        key=f"{KEY}-{place}",
        by_trial=True,
        title=label(name).capitalize(),
        alone=f"{label(record.metric).capitalize()} by {label(name)}",
        caption=f"Best at {parameter(name, having[0].params[name])}; {_best_quarter(name, best)}",
        alternative=f"Scatter plot of {label(record.metric)} against {label(name)}. The best value, "
        f"{objective(record.metric, having[0].value)}, is at {parameter(name, having[0].params[name])}.",
        spec=compiled(_chart(record, having, name), HEIGHT),
    )


def _best_quarter(name: str, best: Sequence[TrialRecord]) -> str:
    values = [t.params[name] for t in best]
    if _is_named(values):
        seen = sorted({number(value) for value in values})
        return f"the best quarter has {listing(seen[:6])}"
    ordered = sorted(float(value) for value in values)
    return f"the best quarter from {parameter(name, ordered[0])} to {parameter(name, ordered[-1])}"


def _is_named(values: Sequence[ParameterValue]) -> bool:
    """Whether values are better shown side by side than on a scale."""
    if any(isinstance(v, bool | str) for v in values):
        return True
    return all(isinstance(v, int) for v in values) and len(set(values)) <= MOST_NAMED


def _chart(record: SearchRecord, trials: Sequence[TrialRecord], name: str) -> Any:
    tone, won = tones(record), winner(record)
    values = [t.params[name] for t in trials]
    named = _is_named(values)
    rows = [
        {
            "trial": t.number,
            "at": number(t.params[name]) if named else t.params[name],
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
        filled=True, shape=STAR, fill=WINNER, stroke=PAPER, strokeWidth=1, opacity=1
    )
    return alt.layer(others, star.encode(size=when_focused(360, alt.value(200)))).add_params(focus_param())


def _x(name: str, values: Sequence[ParameterValue], named: bool) -> Any:
    if named:
        texts = any(isinstance(v, str) for v in values)
        order = [number(v) for v in sorted(set(values), key=str if texts else float)]
        axis = alt.Axis(labelAngle=0, labelLimit=80, labelPadding=7, ticks=False, grid=False)
        return alt.X("at:N", title=None, axis=axis, scale=alt.Scale(domain=order, padding=0.6))
    numbers = [float(v) for v in values]
    if is_logarithmic(name, values):
        low, high = min(numbers) / 1.2, max(numbers) * 1.2
        scale = alt.Scale(type="log", domain=[low, high], nice=False)
        axis = alt.Axis(format=".1~e", values=log_ticks(low, high), labelOverlap=True, grid=False)
        return alt.X("at:Q", title=None, scale=scale, axis=axis)
    margin = 0.04 * (max(numbers) - min(numbers))
    scale = alt.Scale(domain=[min(numbers) - margin, max(numbers) + margin], nice=False, zero=False)
    return alt.X("at:Q", title=None, scale=scale, axis=alt.Axis(format=".3~g", tickCount=4, grid=False))
