"""Where the time went."""

from __future__ import annotations

import math

import altair as alt

from search.durations import format_duration
from search.record import SearchRecord
from search.report.charts.figure import Figure, compiled, focus_param, nothing
from search.report.theme import STAGE_RANGE
from search.report.words import label, listing, percent

KEY = "stages"
STAGES = {
    "data": "reading and augmenting images",
    "prefix": "the frozen part of the backbone",
    "compile": "compiling",
    "suffix": "training the unfrozen part and the head",
    "evaluate": "evaluation",
    "checkpoint": "checkpoints",
    "tracking": "tracking",
}
"""The stages of work in the order in which a trial passes through them."""


def stage_totals(record: SearchRecord) -> list[tuple[str, float]]:
    """Each stage of work and its seconds over all trials, in the order of :data:`STAGES`."""
    totals: dict[str, float] = {}
    for trial in record.trials:
        for stage, seconds in trial.stages.items():
            if math.isfinite(seconds) and seconds > 0:
                totals[stage] = totals.get(stage, 0.0) + seconds
    names = [stage for stage in STAGES if stage in totals] + sorted(set(totals) - set(STAGES))
    return [(stage, totals[stage]) for stage in names]


def stages(record: SearchRecord) -> Figure:
    """Seconds of every trial, split by stage of work."""
    totals = stage_totals(record)
    if not totals:
        return nothing(KEY, "Where the time went", "No trial has said yet where its time went.")
    everything = sum(seconds for _, seconds in totals)
    stage, most = max(totals, key=lambda item: item[1])
    spoken = [f"{label(name)} {format_duration(seconds)}" for name, seconds in totals]
    return Figure(
        key=KEY,
        by_trial=True,
        title=f"{percent(most / everything, 0)} of the time went into {STAGES.get(stage, label(stage))}",
        caption="Seconds of each trial by stage of work. The prefix is the frozen part of the backbone, the "
        "suffix what is trained.",
        alternative=f"Stacked bars, one a trial. In total: {listing(spoken)}.",
        legend=tuple(zip((label(name) for name, _ in totals), STAGE_RANGE, strict=False)),
        spec=compiled(_chart(record, [name for name, _ in totals]), 240),
    )


def _chart(record: SearchRecord, names: list[str]) -> alt.Chart:
    rows = [
        {"trial": t.number, "stage": label(name), "step": step, "seconds": round(t.stages[name], 4)}
        for t in record.trials
        for step, name in enumerate(names)
        if t.stages.get(name, 0.0) > 0
    ]
    colours = alt.Scale(domain=[label(name) for name in names], range=STAGE_RANGE)
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
