"""Draw the map of unfreeze depth against learning rate."""

from __future__ import annotations

from statistics import median
from typing import Any

import altair as alt

from search.records.formatting import plural
from search.records.record import SearchRecord, TrialRecord
from search.report.analysis.ranking import loss_key, ranked, tones, winner
from search.report.analysis.wording import format_metric, format_number, format_parameter, label
from search.report.charts.axes import GRID, PAPER, STAR_PATH, WINNER, log_ticks, tone_scale
from search.report.charts.figure import Figure, compiled, empty_figure, focus_param, when_focused

KEY = "landscape"
BAND = 0.7
"""Height of the band of one depth; with 1 the bands would touch."""
TITLE = "Unfreeze depth against learning rate"
GOLDEN_RATIO = 0.618034
"""Spreads marks within a row: successive multiples of the golden ratio, modulo 1, are never close together."""


def landscape(record: SearchRecord) -> Figure:
    """Draw each trial at its learning rate and depth, coloured by its rank."""
    trials = [t for t in ranked(record) if _placed(t)]
    if not trials:
        return empty_figure(KEY, TITLE, "No finished trial has both an unfreeze depth and a learning rate.")
    depths = _depths(record, trials)
    return Figure(
        key=KEY,
        by_trial=True,
        title=_title(record, trials),
        caption="Each mark is a trial, by the number of unfrozen blocks and the learning rate. The stronger the "
        "colour, the better its value; the star is the winner.",
        alternative=_alternative(record, trials),
        spec=compiled(_chart(record, trials, depths), 46 * len(depths) + 20 if len(depths) < 9 else 420),
        tones=_ends(record, trials),
    )


def _placed(trial: TrialRecord) -> bool:
    rate = trial.params.get("learning_rate")
    return "unfreeze_depth" in trial.params and isinstance(rate, int | float) and rate > 0


def _depths(record: SearchRecord, trials: list[TrialRecord]) -> list[Any]:
    """Return the rows of the map, the greatest depth last."""
    blocks = max(len(b.blocks) for b in (record.backbone, *record.backbones.values()))
    seen = {t.params["unfreeze_depth"] for t in trials}
    # Depths without trials are shown, too, so that gaps are visible; with many blocks they would take too much
    # room.
    every = {*range(blocks + 1), *seen} if blocks <= 12 else seen
    return sorted(every, key=float)


def _title(record: SearchRecord, trials: list[TrialRecord]) -> str:
    best = trials[: max(1, len(trials) // 5)]
    rates = [float(t.params["learning_rate"]) for t in best]
    depths = sorted({float(t.params["unfreeze_depth"]) for t in best})
    if len(best) == 1:
        return f"The best trial has depth {format_number(int(depths[0]))} and a learning rate of {_rate(rates[0])}"
    spread = f"{format_number(int(depths[0]))}" + (
        f" to {format_number(int(depths[-1]))}" if len(depths) > 1 else ""
    )
    where = f"learning rates from {_rate(min(rates))} to {_rate(max(rates))}"
    return f"The best {len(best)} trials lie at depth {spread}, {where}"


def _rate(value: float) -> str:
    return format_parameter("learning_rate", value)


def _alternative(record: SearchRecord, trials: list[TrialRecord]) -> str:
    rows = []
    for depth in sorted({t.params["unfreeze_depth"] for t in trials}, key=float):
        values = [t.value for t in trials if t.params["unfreeze_depth"] == depth and t.value is not None]
        best = min(values, key=lambda v: loss_key(record, v))
        rows.append(
            f"depth {format_number(depth)}: {plural(len(values), 'trial')}, best {format_metric(record.metric, best)}, "
            f"median {format_metric(record.metric, median(values))}"
        )
    return "Scatter plot. " + "; ".join(rows) + "."


def _ends(record: SearchRecord, trials: list[TrialRecord]) -> tuple[str, str]:
    return format_metric(record.metric, trials[-1].value), format_metric(record.metric, trials[0].value)


def _chart(record: SearchRecord, trials: list[TrialRecord], depths: list[Any]) -> Any:
    marks = _bands(depths), *_marks(record, trials)
    return alt.layer(*marks).add_params(focus_param())


def _bands(depths: list[Any]) -> Any:
    """Return one bar for each depth, so that it is clear to which depth a mark belongs."""
    rows = [{"from": depth - BAND / 2, "to": depth + BAND / 2} for depth in depths]
    bars = alt.Chart(alt.Data(values=rows)).mark_rect(fill=GRID, cornerRadius=4)
    scale = alt.Scale(domain=[depths[0] - 0.5, depths[-1] + 0.5], nice=False, zero=False)
    shown = depths if len(depths) <= 14 else alt.Undefined
    axis = alt.Axis(values=shown, format="d", tickMinStep=1, grid=False, domain=False, ticks=False)
    return bars.encode(y=alt.Y("from:Q", title="blocks unfrozen", scale=scale, axis=axis), y2="to:Q")


def _marks(record: SearchRecord, trials: list[TrialRecord]) -> list[Any]:
    tone, won = tones(record), winner(record)
    rows = [
        {
            "trial": t.number,
            "rate": t.params["learning_rate"],
            # Marks of one depth are spread within its band, so that they do not hide each other.
            "place": float(t.params["unfreeze_depth"]) + 0.7 * BAND * ((t.number * GOLDEN_RATIO) % 1 - 0.5),
            "tone": tone[t.number],
            "won": won is not None and t.number == won.number,
        }
        for t in reversed(trials)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(x=_rate_axis(trials), y="place:Q")
    marks = base.mark_point(filled=True, opacity=1, stroke=PAPER, strokeWidth=0.8)
    others = marks.transform_filter("!datum.won").encode(
        fill=alt.Fill("tone:O", scale=tone_scale(), legend=None), size=when_focused(320, alt.value(110))
    )
    star = base.transform_filter("datum.won").mark_point(
        filled=True, shape=STAR_PATH, fill=WINNER, stroke=PAPER, strokeWidth=1, opacity=1
    )
    return [others, star.encode(size=when_focused(420, alt.value(240)))]


def _rate_axis(trials: list[TrialRecord]) -> Any:
    rates = [float(t.params["learning_rate"]) for t in trials]
    # A factor, not a difference: the axis is logarithmic.
    low, high = min(rates) / 1.3, max(rates) * 1.3
    axis = alt.Axis(format=".1~e", values=log_ticks(low, high), grid=False)
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    return alt.X("rate:Q", title=label("learning_rate"), axis=axis, scale=scale)
