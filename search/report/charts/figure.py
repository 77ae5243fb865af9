"""A figure of the report: what it says, how to read it, and its Vega specification."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert
from altair.utils.schemapi import debug_mode

from search.report.charts.axes import config

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
NO_FOCUS = -1
"""The trial number that the ``focus`` signal holds while no trial is pointed at."""

_checks: ContextVar[bool] = ContextVar("_checks", default=True)


@dataclass(frozen=True)
class Figure:
    """One chart with the words around it.

    ``title`` is what one should learn from it, ``caption`` how to read it, ``alternative`` the same in words
    for who can't see it. ``spec`` is a Vega specification whose ``focus`` signal is the trial to light up;
    it is None where there is nothing to draw, and then ``caption`` says why. ``min_width`` is in pixels.
    """

    key: str
    title: str
    caption: str
    alternative: str = ""
    spec: Mapping[str, Any] | None = None
    tones: tuple[str, str] | None = None
    """What the ends of the colour scale stand for, where the figure uses it."""
    legend: tuple[tuple[str, str], ...] = ()
    """Names and their colours; unlike a legend inside the drawing it wraps on a narrow page."""
    standalone_title: str = ""
    """The title where it stands alone, if it says less in its place on the page."""
    by_trial: bool = False
    """Whether its marks are trials, so that the arrow keys can go through them."""
    min_width: int = 0
    max_width: int = 0


def empty_figure(key: str, title: str, why: str) -> Figure:
    """A figure that can't be drawn from what is known."""
    return Figure(key=key, title=title, caption=why)


def focus_param() -> Any:
    """The Vega-Lite parameter that the page sets to the trial under the pointer."""
    return alt.param(name="focus", value=NO_FOCUS)


def when_focused(lit: Any, otherwise: Any) -> Any:
    """An encoding value that differs for the trial in focus; ``otherwise`` may be a value or an encoding."""
    return alt.when("datum.trial === focus").then(alt.value(lit)).otherwise(otherwise)


@contextmanager
def unchecked() -> Iterator[None]:
    """Draw without holding every piece against the schema of Vega-Lite, which takes longer than the drawing."""
    before = _checks.set(False)
    try:
        with debug_mode(False):
            yield
    finally:
        _checks.reset(before)


def compiled(chart: Any, height: int) -> Mapping[str, Any]:
    """The Vega specification of an Altair chart, as wide as its place, ``height`` pixels high."""
    whole = chart.properties(width="container", height=height).to_dict(validate=_checks.get())
    whole.pop("$schema", None)
    whole["config"] = config()
    whole["autosize"] = {"type": "fit-x", "contains": "padding"}
    return without_schema(vl_convert.vegalite_to_vega(json_safe(whole), vl_version=VEGA_LITE))


def without_schema(spec: dict[str, Any]) -> Mapping[str, Any]:
    """``spec`` without the address of its schema, which nothing here needs."""
    return {name: part for name, part in spec.items() if name != "$schema"}


def json_safe(value: Any) -> Any:
    """``value`` with what JSON can't hold taken out: no NaN, no infinities, no halves of characters."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", errors="replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {json_safe(name): json_safe(part) for name, part in value.items()}
    if isinstance(value, Sequence):
        return [json_safe(part) for part in value]
    return value
