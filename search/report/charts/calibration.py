"""Draw the reliability diagram: the winner's accuracy against the probabilities that it predicts."""

from __future__ import annotations

from typing import Any

import altair as alt

from search.records.formatting import plural
from search.records.record import Calibration, SearchRecord
from search.report.analysis.wording import format_interval, format_percent, join_words
from search.report.charts.axes import ACCENT, INK, MUTED, PAPER
from search.report.charts.figure import Figure, compiled, empty_figure, focus_param

KEY = "calibration"
TITLE = "Are its probabilities calibrated?"
SIDE = 320


def calibration(record: SearchRecord) -> Figure:
    """Draw the accuracy on the test images against the predicted probability, in ten bins."""
    outcome = record.outcome
    if outcome is None:
        return empty_figure(KEY, TITLE, "The winner has not been measured on the test images yet.")
    known = outcome.calibration
    if known is None:
        return empty_figure(
            KEY,
            TITLE,
            "This winner was measured by an earlier version, which did not keep its probabilities.",
        )
    return Figure(
        key=KEY,
        title=_title(known),
        caption="Test images by the probability of the predicted class. On the dashed line, the share of correct "
        "predictions equals the probability. Vertical bars are 95 % intervals; the numbers at the bottom count images. "
        + error_phrase(known),
        alternative=f"Reliability diagram. {_in_words(known)}.",
        spec=compiled(_chart(known), SIDE),
        max_width=SIDE + 100,
    )


def error_phrase(known: Calibration) -> str:
    """Describe the expected calibration error in a sentence."""
    error = known.error
    return (
        f"Expected calibration error: {_points(error.estimate)} points (95 % interval {_points(error.low)} to "
        f"{_points(error.high)}); on as many images even a perfectly calibrated model may show "
        f"{_points(known.by_chance)}."
    )


def _points(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _title(known: Calibration) -> str:
    # The ECE of a perfect model is above 0 on a finite test: only an error beyond that is worth a statement.
    if known.error.estimate <= known.by_chance:
        images = plural(sum(b.images for b in known.bins), "image")
        return f"Its probabilities are calibrated, as far as {images} can tell"
    if known.excess.low > 0:
        return f"It is overconfident: by {_points(known.excess.estimate)} points on average"
    if known.excess.high < 0:
        return f"It is underconfident: by {_points(-known.excess.estimate)} points on average"
    return f"Its probabilities are off by {_points(known.error.estimate)} points on average"


def _in_words(known: Calibration) -> str:
    return join_words(
        [
            f"{plural(b.images, 'image')} at {format_percent(b.certain, 0)}: "
            f"{format_percent(b.accuracy.estimate, 0)} right"
            for b in known.bins
        ]
    )


def _chart(known: Calibration) -> Any:
    rows = [
        {
            "certain": round(b.certain, 4),
            "right": round(b.accuracy.estimate, 4),
            "low": round(b.accuracy.low, 4),
            "high": round(b.accuracy.high, 4),
            "images": b.images,
            "probability": f"{format_percent(b.low, 0)} to {format_percent(b.high, 0)}, mean "
            f"{format_percent(b.certain)}",
            "right answers": f"{format_percent(b.accuracy.estimate)} ({format_interval(b.accuracy)})",
        }
        for b in known.bins
    ]
    tooltip = [alt.Tooltip(f"{name}:N") for name in ("probability", "right answers", "images")]
    scale = alt.Scale(domain=[0, 1], nice=False)
    ticks = alt.Axis(format=".0%", tickCount=5)
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("certain:Q", title="predicted probability", scale=scale, axis=ticks), tooltip=tooltip
    )
    right = alt.Y("right:Q", title="share correct", scale=scale, axis=ticks)
    perfect = alt.Chart(alt.Data(values=[{"certain": 0, "right": 0}, {"certain": 1, "right": 1}]))
    line = perfect.mark_line(stroke=MUTED, strokeDash=[4, 4], strokeWidth=1.5).encode(x="certain:Q", y=right)
    spans = base.mark_rule(stroke=ACCENT, strokeWidth=5, opacity=0.35, strokeCap="round").encode(
        y=alt.Y("low:Q"), y2="high:Q"
    )
    dots = base.mark_point(filled=True, fill=ACCENT, stroke=PAPER, strokeWidth=1, opacity=1, size=90)
    counts = base.mark_text(fill=INK, fontSize=11, tooltip=None).encode(
        y=alt.value(SIDE - 10), text=alt.Text("images:Q", format=",")
    )
    return alt.layer(line, spans, dots.encode(y=right), counts).add_params(focus_param())
