"""Draw how much time each trial spent in each stage of work."""

from __future__ import annotations

import math
from dataclasses import dataclass

import altair as alt

from search.records.record import SearchRecord
from search.records.units import format_duration
from search.report.analysis.wording import format_percent, join_words, label
from search.report.charts.axes import STAGE_RANGE
from search.report.charts.figure import Figure, compiled, empty_figure, focus_param
from trainables.cost_account import STAGES

KEY = "stages"
BAR_WIDTH = 80
"""Maximum width of one trial in pixels, so that a few trials do not become wide blocks."""
STACKING_ORDER = (
    "data",
    "prefix",
    "compile",
    "suffix",
    "evaluate",
    "checkpoint",
    "tracking",
    "wait",
    "start",
    "probe",
)
"""The stages of :data:`~trainables.cost_account.STAGES` in the order of the bars and the legend, from the bottom.

A stage's colour depends on its position here, so a new stage is appended. No trial spends time in ``tracking``; the
name keeps its position so that the colours of the stages after it do not change.
"""


@dataclass(frozen=True)
class StageTotal:
    """Seconds that all trials together spent in a stage. A stage has the same colour in every report."""

    name: str
    seconds: float
    colour: str


def stage_totals(record: SearchRecord) -> list[StageTotal]:
    """Return the stages that took any time, in the order of :data:`STACKING_ORDER`, unknown ones last."""
    totals: dict[str, float] = {}
    for trial in record.trials:
        for stage, seconds in trial.stages.items():
            if math.isfinite(seconds) and seconds > 0:
                totals[stage] = totals.get(stage, 0.0) + seconds
    # Colours depend on a stage's position in STACKING_ORDER, not on which stages occur, so that they are the same
    # in every report.
    every = [*STACKING_ORDER, *sorted(set(totals) - set(STACKING_ORDER))]
    colours = {stage: STAGE_RANGE[place % len(STAGE_RANGE)] for place, stage in enumerate(every)}
    return [StageTotal(stage, totals[stage], colours[stage]) for stage in every if stage in totals]


def stages(record: SearchRecord) -> Figure:
    """Draw the seconds of every trial, split by stage of work."""
    totals = stage_totals(record)
    if not totals:
        return empty_figure(KEY, "Seconds by stage of work", "No trial has reported its times yet.")
    everything = sum(total.seconds for total in totals)
    most = max(totals, key=lambda total: total.seconds)
    description = [f"{label(total.name)} {format_duration(total.seconds)}" for total in totals]
    share = format_percent(most.seconds / everything, 0)
    return Figure(
        key=KEY,
        by_trial=True,
        title=f"{share} of the time went into {STAGES.get(most.name, label(most.name))}",
        caption="Seconds of each trial by stage of work. The prefix is the frozen part of the backbone, the suffix "
        "is the trained part; trials wait for activations or programs of other trials.",
        alternative=f"Stacked bars, one a trial. In total: {join_words(description)}.",
        legend=tuple((label(total.name), total.colour) for total in totals),
        spec=compiled(_chart(record, totals), 240),
        max_width=BAR_WIDTH * len(record.trials) + 100,
    )


def _chart(record: SearchRecord, totals: list[StageTotal]) -> alt.Chart:
    rows = [
        {"trial": t.number, "stage": total.name, "step": step, "seconds": round(t.stages[total.name], 4)}
        for t in record.trials
        for step, total in enumerate(totals)
        if t.stages.get(total.name, 0.0) > 0
    ]
    colours = alt.Scale(domain=[total.name for total in totals], range=[total.colour for total in totals])
    axis = alt.Axis(labelAngle=0, labelOverlap=True, ticks=False, grid=False)
    bars = alt.Chart(alt.Data(values=rows)).mark_bar(strokeWidth=0)
    stacked = bars.encode(
        x=alt.X("trial:O", title="trial", axis=axis, scale=alt.Scale(paddingInner=0.18)),
        y=alt.Y("seconds:Q", title="seconds", axis=alt.Axis(tickCount=5)),
        fill=alt.Fill("stage:N", scale=colours, legend=None),
        order=alt.Order("step:Q"),
        opacity=alt.when("focus < 0 || datum.trial === focus").then(alt.value(1)).otherwise(alt.value(0.35)),
    )
    return stacked.add_params(focus_param())
