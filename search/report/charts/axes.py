"""Define colours, fonts, axes and scales that the figures share.

Colours are CSS variables, so that a figure follows the page: light, dark or printed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

import altair as alt

from search.records.metrics import is_fraction
from search.records.record import ParameterValue, SearchRecord
from search.report.analysis.ranking import TONES
from search.report.analysis.wording import LOGARITHMIC, label

INK, MUTED, PAPER = "var(--ink)", "var(--muted)", "var(--paper)"
RULE, GRID = "var(--rule)", "var(--grid)"
ACCENT, WRONG, WINNER = "var(--accent)", "var(--wrong)", "var(--winner)"
TONE_RANGE = [f"var(--tone-{step})" for step in range(TONES)]
STAGE_RANGE = [f"var(--stage-{step})" for step in range(10)]

STATE_COLOURS = {"complete": ACCENT, "pruned": MUTED, "failed": WRONG, "running": MUTED}
STATE_SHAPES = {"complete": "circle", "pruned": "triangle-down", "failed": "cross", "running": "square"}
STAR_PATH = (
    "M0,-1L0.22,-0.31L0.95,-0.31L0.36,0.12L0.59,0.81L0,0.38L-0.59,0.81L-0.36,0.12L-0.95,-0.31L-0.22,-0.31Z"
)
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def config() -> dict[str, Any]:
    """Return the configuration that all figures share, for Vega-Lite and for Vega."""
    return {
        "background": None,
        "font": FONT,
        "padding": {"left": 2, "right": 8, "top": 6, "bottom": 2},
        "view": {"stroke": None},
        "axis": {
            "labelColor": MUTED,
            "titleColor": INK,
            "labelFont": FONT,
            "titleFont": FONT,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "domainColor": RULE,
            "tickColor": RULE,
            "gridColor": GRID,
            "labelLimit": 150,
            "titlePadding": 8,
        },
        "legend": {
            "labelColor": INK,
            "titleColor": MUTED,
            "labelFont": FONT,
            "titleFont": FONT,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "symbolStrokeWidth": 1.5,
            "orient": "top",
        },
        "text": {"font": FONT, "fontSize": 12, "fill": INK, "color": INK},
    }


def value_format(record: SearchRecord) -> str:
    """Return the d3 format of the objective."""
    return ".3~p" if is_fraction(record.metric) else ".3~g"


def trial_axis(record: SearchRecord) -> Any:
    """Return the x axis of trial numbers."""
    last = max((t.number for t in record.trials), default=0)
    last = max(last, 4)
    return alt.X(
        "trial:Q",
        title="trial",
        scale=alt.Scale(domain=[-0.5, last + 0.5], nice=False, zero=False),
        axis=whole_numbers(0, last),
    )


def whole_numbers(first: int, last: int) -> Any:
    """Return an axis of counts, with one tick per number if they are few: Vega would add ticks between them."""
    values = list(range(first, last + 1)) if last - first <= 30 else alt.Undefined
    return alt.Axis(format="d", tickMinStep=1, grid=False, values=values, labelOverlap=True)


def value_axis(record: SearchRecord, domain: tuple[float, float]) -> Any:
    """Return the y axis of the objective; values outside ``domain`` are drawn on its edge."""
    return alt.Y(
        "value:Q",
        title=label(record.metric),
        scale=alt.Scale(domain=list(domain), clamp=True, nice=False, zero=False),
        axis=alt.Axis(format=value_format(record), tickCount=6),
    )


def tone_scale() -> Any:
    """Return the colour scale from the worst to the best trial."""
    return alt.Scale(domain=list(range(TONES)), range=TONE_RANGE)


def is_logarithmic(name: str, values: Sequence[ParameterValue]) -> bool:
    """Return whether an axis should be logarithmic: by the parameter's name, or because most values are close to 0."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) != len(values) or not numbers or min(numbers) <= 0:
        return False
    top = max(numbers)
    # Positive values over two decades, most of them in the lowest tenth, would be squeezed together on a linear
    # axis.
    return name in LOGARITHMIC or (top >= 100 * min(numbers) and top >= 10 * median(numbers))


def log_ticks(low: float, high: float) -> list[float]:
    """Return the powers of ten between ``low`` and ``high``, or finer steps if there are too few of them."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), range(1, 10)):
        # Parsed from text: 3 * 10**-5 is 3.0000000000000004e-05 in floating point.
        ticks = [float(f"{step}e{e}") for e in exponents for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) > 1:
            return ticks
    return [low, high]
