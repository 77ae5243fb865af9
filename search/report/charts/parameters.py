"""Which parameters make the difference, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import altair as alt

from search.records.record import SearchRecord
from search.report.analysis.wording import label, listing, percent
from search.report.charts.figure import Figure, compiled, focus_param, nothing
from search.report.theme import ACCENT, INK

KEY = "importance"
MOST_BARS = 20
ROOM = 1.9
"""Length of the axis by that of the longest line: the words beside it have to fit on a phone."""


@dataclass(frozen=True)
class Share:
    """A parameter's share of the differences; ``low`` and ``high`` are None where no interval is known."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def said(self) -> str:
        """As in ``60 % (31 to 82)``."""
        words = percent(self.value, 0 if self.value >= 0.01 or self.value == 0 else 1)
        if self.low is None or self.high is None:
            return words
        return f"{words} ({100 * self.low:.0f} to {100 * self.high:.0f})"


def importance(record: SearchRecord) -> Figure:
    """The share of the differences between trials that each parameter explains."""
    known = shares(record)
    if not known:
        return nothing(
            KEY,
            "Importance of the parameters",
            "Importances need several finished trials with different values; there are too few.",
        )
    return Figure(
        key=KEY,
        title=_lesson(known),
        caption="What tells the best trials from the others: each parameter's share (PED-ANOVA), estimated from all "
        "trials that ended with a value. Lines are 95 % intervals over trials drawn with replacement: where they "
        "overlap, the order is a guess.",
        alternative=f"Bar chart of parameter importance: {listing([f'{label(s.name)} {s.said}' for s in known])}.",
        spec=compiled(_chart(known), 34 * len(known) + 20),
    )


def shares(record: SearchRecord) -> list[Share]:
    """Shares that sum to 1 (but for those that are left out), the greatest first."""
    known = {name: max(v, 0.0) for name, v in record.importances.items() if math.isfinite(v)}
    total = sum(known.values())
    if total <= 0:
        return []
    found = [_share(record, name, value / total) for name, value in known.items()]
    return sorted(found, key=lambda share: (-share.value, share.name))[:MOST_BARS]


def _share(record: SearchRecord, name: str, value: float) -> Share:
    interval = record.importance_intervals.get(name)
    if interval is None:
        return Share(name, value)
    return Share(name, value, min(interval.low, value), max(interval.high, value))


def _lesson(known: list[Share]) -> str:
    first, *others = known
    name, share = label(first.name), percent(first.value, 0)
    if first.low is None or not others:
        return f"{name.capitalize()} mattered most: {share} of the differences"
    if first.low > others[0].value:
        return f"{name.capitalize()} mattered most: {share} of the differences, certainly {percent(first.low, 0)}"
    return f"{name.capitalize()} seems to matter most ({share}), but the trials are too few to be sure"


def _chart(known: list[Share]) -> Any:
    rows = [
        {"name": label(s.name), "share": s.value, "low": s.low, "high": s.high, "text": s.said} for s in known
    ]
    reach = max(s.high if s.high is not None else s.value for s in known)
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelColor=INK)),
        x=alt.X("share:Q", title=None, axis=None, scale=alt.Scale(domain=[0, reach * ROOM])),
    )
    bars = base.mark_bar(
        height=14, fill=ACCENT, cornerRadiusEnd=2, opacity=1 if known[0].low is None else 0.6
    )
    spans = base.transform_filter("datum.low !== null")
    lines = spans.mark_rule(stroke=INK, strokeWidth=1.5).encode(x="low:Q", x2="high:Q")
    end = base.transform_calculate(end="datum.high === null ? datum.share : datum.high")
    texts = end.mark_text(align="left", dx=8, fill=INK).encode(x="end:Q", text="text:N")
    return alt.layer(bars, lines, texts).add_params(focus_param())
