"""How figures look. Colours are CSS variables, so that a figure follows the page: light, dark, paper."""

from __future__ import annotations

from typing import Any

from search.report.analysis.ranking import TONES

INK, MUTED, PAPER = "var(--ink)", "var(--muted)", "var(--paper)"
RULE, GRID = "var(--rule)", "var(--grid)"
ACCENT, WRONG, WINNER = "var(--accent)", "var(--wrong)", "var(--winner)"
TONE_RANGE = [f"var(--tone-{step})" for step in range(TONES)]
STAGE_RANGE = [f"var(--stage-{step})" for step in range(10)]

STATE_COLOURS = {"complete": ACCENT, "pruned": MUTED, "failed": WRONG, "running": MUTED}
STATE_SHAPES = {"complete": "circle", "pruned": "triangle-down", "failed": "cross", "running": "square"}
STAR = "M0,-1L0.22,-0.31L0.95,-0.31L0.36,0.12L0.59,0.81L0,0.38L-0.59,0.81L-0.36,0.12L-0.95,-0.31L-0.22,-0.31Z"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def config() -> dict[str, Any]:
    """The configuration that all figures share (for Vega-Lite and for Vega)."""
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
