"""Several objectives: what one costs in another, and the trials that no other is better than in both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from search.phrases import plural
from search.record import SearchRecord, TrialRecord
from search.report.charts.axes import is_logarithmic
from search.report.charts.figure import Figure, compiled, focus_param, when_focused
from search.report.ranking import badness, readable_domain, winner
from search.report.theme import ACCENT, INK, MUTED, PAPER, STAR, WINNER
from search.report.words import is_fraction, label, number, objective

KEY = "pareto"
HEIGHT = 280
MAXIMISED = frozenset({"val_accuracy"})
"""Objectives beside the first of which more is better."""

UNITS = {"latency_ms": "latency, ms", "megabytes": "size, MB", "parameters": "parameters"}


@dataclass(frozen=True)
class Point:
    """A trial's first objective (``value``) and another one (``cost``)."""

    trial: int
    value: float
    cost: float


def fronts(record: SearchRecord) -> tuple[Figure, ...]:
    """The first objective against each other one; none where a search has one objective."""
    others = [name for name in _objectives(record) if name != record.metric]
    drawn = [(name, points(record, name)) for name in others]
    return tuple(
        _figure(record, name, found, f"{KEY}-{place}") for place, (name, found) in enumerate(drawn) if found
    )


def points(record: SearchRecord, other: str) -> list[Point]:
    """The ended trials that have both objectives, by number."""
    found = []
    for trial in record.trials:
        value, cost = trial.value, _values(trial).get(other)
        if value is None or cost is None or not trial.finished or trial.state == "failed":
            continue
        if math.isfinite(value) and math.isfinite(cost):
            found.append(Point(trial.number, value, cost))
    return found


def front(record: SearchRecord, found: Sequence[Point], other: str) -> list[Point]:
    """The points that no other one is as good as in both and better in one, the cheapest first."""
    sign = -1.0 if other in MAXIMISED else 1.0
    chosen: list[Point] = []
    for point in sorted(found, key=lambda p: (sign * p.cost, badness(record, p.value), p.trial)):
        if not chosen or badness(record, point.value) < badness(record, chosen[-1].value):
            chosen.append(point)
    return chosen


def _objectives(record: SearchRecord) -> Sequence[str]:
    return tuple(getattr(record, "objectives", ()))


def _values(trial: TrialRecord) -> Mapping[str, float]:
    return dict(getattr(trial, "objectives", {}))


def _figure(record: SearchRecord, other: str, found: list[Point], key: str) -> Figure:
    best = front(record, found, other)
    named = UNITS.get(other, label(other))
    return Figure(
        key=key,
        by_trial=True,
        title=_lesson(record, other, best),
        caption=f"Each mark is a trial. On the line ({plural(len(best), 'trial')}) lie those that no other one is as "
        f"good as in both {label(record.metric)} and {label(other)}: choose among them.",
        alternative=f"Scatter plot of {label(record.metric)} against {named}. On the front: "
        + "; ".join(
            f"trial {p.trial}, {objective(record.metric, p.value)} at {_said(other, p.cost)}" for p in best
        )
        + ".",
        spec=compiled(_chart(record, other, found, best), HEIGHT),
    )


def _said(other: str, cost: float) -> str:
    if is_fraction(other):
        return objective(other, cost)
    unit = {"latency_ms": " ms", "megabytes": " MB", "parameters": " parameters"}.get(other, "")
    return f"{number(round(cost) if other == 'parameters' else cost)}{unit}"


def _lesson(record: SearchRecord, other: str, best: list[Point]) -> str:
    cheap, dear = (
        f"{objective(record.metric, p.value)} at {_said(other, p.cost)}" for p in (best[0], best[-1])
    )
    return f"Trial {best[0].trial} is the best in both: {cheap}" if len(best) == 1 else f"{cheap}, or {dear}"


def _chart(record: SearchRecord, other: str, found: list[Point], best: list[Point]) -> Any:
    won = winner(record)
    chosen = {point.trial for point in best}
    rows = [
        {
            "trial": p.trial,
            "value": p.value,
            "cost": p.cost,
            "best": p.trial in chosen,
            "won": won is not None and p.trial == won.number,
        }
        for p in sorted(found, key=lambda p: p.trial in chosen)
    ]
    costs = [p.cost for p in found]
    x = alt.X("cost:Q", title=UNITS.get(other, label(other))).scale(zero=False, nice=True, padding=12)
    if is_logarithmic(other, costs):
        x = x.scale(type="log", nice=True, padding=12)
    x = x.axis(grid=False, tickCount=6, format="~s" if other == "parameters" else ".3~g")
    low, high = readable_domain(record, [p.value for p in found])
    low, high = min(low, *(p.value for p in best)), max(high, *(p.value for p in best))
    y = alt.Y("value:Q", title=label(record.metric)).scale(
        domain=[low, high], nice=False, zero=False, clamp=True
    )
    y = y.axis(format=".3~p" if is_fraction(record.metric) else ".3~g", tickCount=6)
    line = alt.Chart(alt.Data(values=[{"cost": p.cost, "value": p.value} for p in best])).mark_line(
        interpolate="step-before" if other in MAXIMISED else "step-after",
        stroke=ACCENT,
        strokeWidth=1.5,
        opacity=0.7,
    )
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, y=y)
    colour = alt.when("datum.best").then(alt.value(ACCENT)).otherwise(alt.value(MUTED))
    marks = base.mark_point(filled=True, stroke=PAPER, strokeWidth=0.8, opacity=1).transform_filter(
        "!datum.won"
    )
    star = base.transform_filter("datum.won").mark_point(
        filled=True, shape=STAR, fill=WINNER, stroke=PAPER, strokeWidth=1, opacity=1
    )
    names = base.transform_filter("datum.best").mark_text(align="left", dx=9, dy=-8, fill=INK, fontSize=11)
    return alt.layer(
        line.encode(x=x, y=y),
        marks.encode(fill=colour, size=when_focused(260, alt.value(80))),
        star.encode(size=when_focused(380, alt.value(240))),
        names.encode(text="trial:N"),
    ).add_params(focus_param())
