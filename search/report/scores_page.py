"""Write the report of ``unfreeze score --report FILE``: a page with a figure and a table, or the figure alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from search.records.formatting import abbreviate_count, format_percent, plural
from search.records.scores import BackboneScores, ScoringResult, explanations
from search.report.charts.axes import FONT
from search.report.charts.figure import VEGA_LITE, json_representable
from trainables.errors import SearchError, UsageError

SCORE_REPORT_SUFFIXES = (".html", ".png", ".svg")
ACCENT, INK = "#0a5fa8", "#16191d"
ROW_HEIGHT, KNN_WIDTH, SCORE_WIDTH = 26, 320, 150
"""Pixels: height of a backbone's row, width of the k-NN plot, width of the other plots."""

COLUMNS = 4
"""Number of plots per row."""

TITLES = {"logme": "LogME", "h_score": "H-score", "label_cka": "CKA with the labels", "leep": "LEEP"}
TITLES |= {"nce": "NCE", "mmd_squared": "MMD² (less is closer)"}


def check_report(path: Path) -> None:
    """Check the extension of the report's file, before any work is done.

    Raises:
        UsageError: it is not one of :data:`SCORE_REPORT_SUFFIXES`.
    """
    if path.suffix.lower() not in SCORE_REPORT_SUFFIXES:
        raise UsageError(
            f"--report: expected a file that ends in {', '.join(SCORE_REPORT_SUFFIXES)}, received {str(path)!r}"
        )


def write_scoring(scoring: ScoringResult, path: Path) -> None:
    """Write the report in the format that the file's extension implies.

    Raises:
        SearchError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rendered(scoring, path.suffix.lower()))
    except OSError as error:
        raise SearchError(
            f"--report: expected a file that can be written, received {str(path)!r}: {error}"
        ) from error


def rendered(scoring: ScoringResult, suffix: str) -> bytes:
    """Return the report as an HTML page, a PNG image or an SVG image."""
    spec = json_representable(figure(scoring))
    if suffix == ".png":
        return bytes(vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=2))
    svg = str(vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE))
    if suffix == ".svg":
        return svg.encode()
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": format_percent, "magnitude": abbreviate_count}
    page = environment.get_template("scores.html.j2").render(
        scoring=scoring,
        subject=f"{plural(scoring.images, 'image')} of {plural(scoring.classes, 'class')}",
        words=explanations(scoring),
        # An XML declaration before the element is not valid inside HTML.
        figure=Markup(svg[svg.index("<svg") :]),
    )
    return page.encode("utf-8", errors="replace")


def figure(scoring: ScoringResult) -> dict[str, Any]:
    """Return the Vega-Lite specification: k-NN with its intervals, then a narrow plot for each other score."""
    rows = [_row(scores) for scores in scoring.backbones]
    order = [row["backbone"] for row in rows]
    shown = [name for name in TITLES if name in rows[0]]
    plots = [_knn(rows, order)]
    plots += [_dots(rows, order, name, first=(n % COLUMNS == 0)) for n, name in enumerate(shown, start=1)]
    starts = range(0, len(plots), COLUMNS)
    grid = [alt.hconcat(*plots[start : start + COLUMNS], spacing=18) for start in starts]
    whole: dict[str, Any] = alt.vconcat(*grid, spacing=24).to_dict()
    whole["config"] = {"font": FONT, "view": {"stroke": None}, "background": "#ffffff"}
    return whole


def _row(scores: BackboneScores) -> dict[str, Any]:
    row: dict[str, Any] = {"backbone": scores.name, "knn": scores.knn.estimate}
    row |= {"low": scores.knn.low, "high": scores.knn.high}
    row |= {"logme": scores.logme, "h_score": scores.h_score, "label_cka": scores.label_cka}
    if scores.likeness is not None:
        likeness = scores.likeness
        row |= {"leep": likeness.leep, "nce": likeness.nce, "mmd_squared": likeness.mmd_squared}
    return row


def _base(rows: list[dict[str, Any]], order: list[str], labels: bool) -> Any:
    axis = alt.Axis(title=None, labels=labels, ticks=False, domain=False, grid=True, labelLimit=260)
    return alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("backbone:N", sort=order, axis=axis))


def _knn(rows: list[dict[str, Any]], order: list[str]) -> Any:
    base = _base(rows, order, labels=True)
    scale = alt.Scale(zero=False, nice=True)
    line = base.mark_rule(color=ACCENT, strokeWidth=2).encode(
        x=alt.X(
            "low:Q", scale=scale, axis=alt.Axis(format="%", title="k-NN accuracy with its 95 % interval")
        ),
        x2="high:Q",
    )
    dots = base.mark_point(filled=True, size=110, color=ACCENT, opacity=1).encode(x="knn:Q")
    return alt.layer(line, dots).properties(width=KNN_WIDTH, height=ROW_HEIGHT * len(order))


def _dots(rows: list[dict[str, Any]], order: list[str], name: str, first: bool) -> Any:
    x = alt.X(f"{name}:Q", scale=alt.Scale(zero=False), axis=alt.Axis(title=TITLES[name], tickCount=4))
    dots = _base(rows, order, labels=first).mark_point(filled=True, size=90, color=INK, opacity=1)
    return dots.encode(x=x).properties(width=SCORE_WIDTH, height=ROW_HEIGHT * len(order))
