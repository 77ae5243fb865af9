"""Define a figure of the report: its texts and its Vega specification."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from search.report.charts.axes import config

try:
    # Private API of Altair, used here only. It only saves time: without it, charts are validated as usual.
    from altair.utils.schemapi import debug_mode
except ImportError:
    debug_mode = nullcontext

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
NO_FOCUS = -1
"""Value of the signal ``focus`` while no trial is under the pointer."""

_checks: ContextVar[bool] = ContextVar("_checks", default=True)


@dataclass(frozen=True)
class Figure:
    """One chart with its texts.

    Attributes:
        key: identifies the figure.
        title: what the reader should learn from it.
        caption: how to read it; if there is nothing to draw, why not.
        alternative: a description for readers who cannot see it.
        spec: Vega specification, whose signal ``focus`` is the trial to highlight; None if there is nothing to draw.
        tones: meaning of the two ends of the colour scale, if the figure uses it.
        legend: names and their colours. Unlike a legend inside the drawing, it wraps on a narrow page.
        standalone_title: the title outside the page, if ``title`` is not enough there.
        by_trial: whether its marks are trials, so that the arrow keys can step through them.
        min_width: minimum width in pixels; 0 for none.
        max_width: maximum width in pixels; 0 for none.
    """

    key: str
    title: str
    caption: str
    alternative: str = ""
    spec: Mapping[str, Any] | None = None
    tones: tuple[str, str] | None = None
    legend: tuple[tuple[str, str], ...] = ()
    standalone_title: str = ""
    by_trial: bool = False
    min_width: int = 0
    max_width: int = 0


def empty_figure(key: str, title: str, why: str) -> Figure:
    """Return a figure that cannot be drawn yet, with the reason."""
    return Figure(key=key, title=title, caption=why)


def focus_param() -> Any:
    """Return the Vega-Lite parameter that the page sets to the trial under the pointer."""
    return alt.param(name="focus", value=NO_FOCUS)


def when_focused(highlighted: Any, otherwise: Any) -> Any:
    """Return an encoding that differs for the trial in focus; ``otherwise`` may be a value or an encoding."""
    return alt.when("datum.trial === focus").then(alt.value(highlighted)).otherwise(otherwise)


@contextmanager
def unchecked() -> Iterator[None]:
    """Skip the validation against the schema of Vega-Lite, which takes longer than the drawing."""
    before = _checks.set(False)
    try:
        with debug_mode(False):
            yield
    finally:
        _checks.reset(before)


def compiled(chart: Any, height: int) -> Mapping[str, Any]:
    """Compile an Altair chart to a Vega specification that fills the width of its container.

    Args:
        chart: the chart.
        height: height in pixels.
    """
    whole = chart.properties(width="container", height=height).to_dict(validate=_checks.get())
    whole.pop("$schema", None)
    whole["config"] = config()
    # Altair would write its own configuration; all figures share ours.
    whole["autosize"] = {"type": "fit-x", "contains": "padding"}
    return without_schema(vl_convert.vegalite_to_vega(json_representable(whole), vl_version=VEGA_LITE))


def without_schema(spec: dict[str, Any]) -> Mapping[str, Any]:
    """Return ``spec`` without the URL of its schema, which nothing here needs."""
    return {name: part for name, part in spec.items() if name != "$schema"}


def json_representable(value: Any) -> Any:
    """Replace what JSON cannot represent: NaN and infinity become null, lone surrogates become question marks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        # Lone surrogates come from file names that are not valid UTF-8; they cannot be encoded in the page.
        return value.encode("utf-8", errors="replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {json_representable(name): json_representable(part) for name, part in value.items()}
    if isinstance(value, Sequence):
        return [json_representable(part) for part in value]
    return value
