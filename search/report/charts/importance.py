"""Which parameters make the difference."""

from __future__ import annotations

import math

import altair as alt

from search.record import SearchRecord
from search.report.charts.figure import Figure, compiled, focus_param, nothing
from search.report.theme import ACCENT, INK
from search.report.words import label, listing, percent

KEY = "importance"
MOST_BARS = 20


def importance(record: SearchRecord) -> Figure:
    """The share of the differences between trials that each parameter explains."""
    shares = _shares(record)
    if not shares:
        return nothing(
            KEY,
            "Importance of the parameters",
            "Importances need several finished trials with different values; there are too few.",
        )
    (first, most), *_ = shares
    spoken = [f"{label(name)} {percent(share, 0)}" for name, share in shares]
    return Figure(
        key=KEY,
        title=f"{label(first).capitalize()} mattered most: {percent(most, 0)} of the differences",
        caption="The share of the differences between trials that each parameter explains, estimated from "
        "the finished ones. With few trials the order is a hint, not a proof.",
        alternative=f"Bar chart of parameter importance: {listing(spoken)}.",
        spec=compiled(_chart(shares), 34 * len(shares) + 20),
    )


def _shares(record: SearchRecord) -> list[tuple[str, float]]:
    """Names and shares that sum to 1, the greatest first."""
    known = {name: max(v, 0.0) for name, v in record.importances.items() if math.isfinite(v)}
    total = sum(known.values())
    if total <= 0:
        return []
    shares = [(name, value / total) for name, value in known.items()]
    return sorted(shares, key=lambda item: (-item[1], item[0]))[:MOST_BARS]


def _chart(shares: list[tuple[str, float]]) -> alt.LayerChart:
    rows = [
        {"name": label(name), "share": share, "text": percent(share, 0 if share >= 0.01 else 1)}
        for name, share in shares
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelColor=INK)),
        x=alt.X("share:Q", title=None, axis=None, scale=alt.Scale(domain=[0, shares[0][1] * 1.25])),
    )
    bars = base.mark_bar(height=14, fill=ACCENT, cornerRadiusEnd=2)
    texts = base.mark_text(align="left", dx=6, fill=INK).encode(text="text:N")
    return alt.layer(bars, texts).add_params(focus_param())
