"""Build the axes and the Vega specification of parallel coordinates; Vega-Lite has no brush per axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from search.records.record import ParameterValue, SearchRecord, TrialRecord
from search.report.analysis.ranking import TONES, objective_domain
from search.report.analysis.wording import format_number, label
from search.report.charts.axes import (
    ACCENT,
    INK,
    MUTED,
    TONE_RANGE,
    WINNER,
    config,
    is_logarithmic,
    value_format,
)
from search.report.charts.figure import NO_FOCUS

UNUSED = -0.13
"""Position of trials that do not use the parameter: below the axis."""
MAX_NAMED_VALUES = 8


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        name: name of the parameter or metric.
        kind: type of its scale.
        domain: (low, high), or all the names of a ``point`` axis from bottom to top.
        places: position of each trial by its number, from 0 to 1; trials without the parameter are missing.
        format: d3 format of its labels.
    """

    name: str
    kind: Literal["linear", "log", "point"]
    domain: tuple[Any, ...]
    places: Mapping[int, float]
    format: str = ".3~g"

    @property
    def label(self) -> str:
        """The name in words."""
        return label(self.name)


def parameter_axes(record: SearchRecord, trials: Sequence[TrialRecord]) -> list[Axis]:
    """Return one axis for each parameter that any of ``trials`` has, the most important one last."""
    names = list(dict.fromkeys(name for t in trials for name in t.params))
    names.sort(key=lambda name: record.importances.get(name, 0.0))
    return [
        _drawn_axis(name, {t.number: t.params[name] for t in trials if name in t.params}) for name in names
    ]


def objective_axis(record: SearchRecord, trials: Sequence[TrialRecord]) -> Axis:
    """Return the axis of the objective; outliers are on its ends."""
    values = {t.number: t.value for t in trials if t.value is not None}
    low, high = objective_domain(record)
    places = {n: min(max((value - low) / (high - low), 0.0), 1.0) for n, value in values.items()}
    return Axis(record.metric, "linear", (low, high), places, value_format(record))


def _drawn_axis(name: str, values: Mapping[int, ParameterValue]) -> Axis:
    found = list(values.values())
    whole = all(isinstance(v, int) for v in found) and len(set(found)) <= MAX_NAMED_VALUES
    if whole or any(isinstance(v, bool | str) for v in found):
        return _named(name, values)
    numbers = {n: float(v) for n, v in values.items()}
    low, high = min(numbers.values()), max(numbers.values())
    if is_logarithmic(name, found):
        low, high = (low, high) if low < high else (low / 2, high * 2)
        span = math.log(high / low)
        return Axis(
            name, "log", (low, high), {n: math.log(v / low) / span for n, v in numbers.items()}, ".1~e"
        )
    low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
    return Axis(name, "linear", (low, high), {n: (v - low) / (high - low) for n, v in numbers.items()})


def _named(name: str, values: Mapping[int, ParameterValue]) -> Axis:
    """Return an axis of a few equally spaced values; trials that share a value are drawn slightly apart."""
    texts = any(isinstance(v, str) for v in values.values())
    order = sorted(set(values.values()), key=str if texts else float)
    steps = max(len(order) - 1, 1)
    middle = 0.5 if len(order) == 1 else 0.0
    # Small enough that trials of neighbouring values do not mix.
    apart = min(0.05, 0.25 / steps)
    places = {
        n: middle + order.index(v) / steps + apart * ((n * 0.618034) % 1 - 0.5) for n, v in values.items()
    }
    return Axis(name, "point", tuple(format_number(v) for v in order), places)


HEIGHT = 300
GRIP = 36
"""Width in pixels of the strip along an axis that reacts to the pointer."""

Spec = dict[str, Any]
UPWARDS = [{"signal": "height"}, 0]


def parallel_spec(axes: Sequence[Axis], rows: list[Spec], best: Sequence[float]) -> Spec:
    """Return the Vega specification.

    The data set ``chosen`` holds the trials inside all brushes. ``usermeta`` names the brushes for the page's
    script.

    Args:
        axes: the axes; the last one is the objective.
        rows: the trials, with their positions on the axes as ``a0``, ``a1``, …
        best: extent of the last axis' brush that keeps the best quarter of the trials.
    """
    unused = any(row[f"a{place}"] == UNUSED for row in rows for place in range(len(axes)))
    return {
        "width": 800,
        "height": HEIGHT,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": {"left": 8, "right": 8, "top": 6, "bottom": 6},
        "config": config(),
        "usermeta": {"brushes": [_brush(i) for i in range(len(axes))], "best": list(best)},
        "signals": [_width(), {"name": "focus", "value": NO_FOCUS}, *map(_brush_signal, range(len(axes)))],
        "data": _data(rows, len(axes)),
        "scales": [*_scales(len(axes)), *[_axis_scale(i, axis) for i, axis in enumerate(axes)]],
        "axes": [_axis(i, axis) for i, axis in enumerate(axes)],
        "marks": [
            _lines(),
            *_titles(axes),
            *_grips(len(axes), 1 - UNUSED if unused else 1),
            *([_unused_label()] if unused else []),
        ],
    }


def _brush(place: int) -> str:
    return f"brush_{place}"


def _width() -> Spec:
    # Without a container, as in vl-convert, its size is not finite.
    inside = "isFinite(containerSize()[0]) ? containerSize()[0] : 800"
    return {"name": "width", "init": inside, "on": [{"events": "window:resize", "update": inside}]}


def _brush_signal(place: int) -> Spec:
    """Return a signal that is null, or the two ends of what was dragged over, from 0 (bottom) to 1."""
    name, here = _brush(place), "1 - y() / height"
    # The drag starts on the axis but continues anywhere in the window.
    dragged = f"[@grip_{place}:pointerdown, window:pointerup] > window:pointermove!"
    return {
        "name": name,
        "value": None,
        "on": [
            {"events": f"@grip_{place}:pointerdown", "update": f"[{here}, {here}]"},
            {"events": dragged, "update": f"[{name}[0], clamp({here}, {UNUSED - 0.04}, 1.02)]"},
            {"events": f"@grip_{place}:dblclick", "update": "null"},
        ],
    }


def _data(rows: list[Spec], axes: int) -> list[Spec]:
    # A brush of almost no height is a click: it selects everything.
    inside = " && ".join(
        f"(!{_brush(i)} || abs({_brush(i)}[0] - {_brush(i)}[1]) < 0.01 || inrange(datum.a{i}, {_brush(i)}))"
        for i in range(axes)
    )
    return [
        {
            "name": "trials",
            "values": rows,
            "transform": [{"type": "formula", "as": "inside", "expr": inside}],
        },
        {"name": "chosen", "source": "trials", "transform": [{"type": "filter", "expr": "datum.inside"}]},
        {
            "name": "places",
            "source": "trials",
            "transform": [
                {"type": "fold", "fields": [f"a{i}" for i in range(axes)], "as": ["axis", "place"]}
            ],
        },
    ]


def _scales(axes: int) -> list[Spec]:
    return [
        {
            "name": "x",
            "type": "point",
            "padding": 0.5,
            "range": "width",
            "domain": [f"a{i}" for i in range(axes)],
        },
        {"name": "y", "type": "linear", "range": "height", "domain": [0, 1], "zero": False},
        {"name": "tone", "type": "ordinal", "domain": list(range(TONES)), "range": TONE_RANGE},
    ]


def _axis_scale(place: int, axis: Axis) -> Spec:
    scale: Spec = {
        "name": f"scale_{place}",
        "type": axis.kind,
        "domain": list(axis.domain),
        "range": UPWARDS,
    }
    return scale if axis.kind == "point" else {**scale, "zero": False, "nice": False}


def _axis(place: int, axis: Axis) -> Spec:
    numeric: Spec = {} if axis.kind == "point" else {"format": axis.format, "tickCount": 5}
    return {
        "orient": "left",
        "scale": f"scale_{place}",
        "offset": {"scale": "x", "value": f"a{place}", "mult": -1},
        "zindex": 1,
        "domainColor": MUTED,
        "tickColor": MUTED,
        "tickSize": 4,
        "labelLimit": 70,
        **numeric,
    }


def _lines() -> Spec:
    """Return two lines per trial: the visible one, and a broad transparent one that is easier to point at."""
    at = {"x": {"scale": "x", "field": "axis"}, "y": {"scale": "y", "field": "place"}}
    stroke = [{"test": "datum.won", "value": WINNER}, {"scale": "tone", "field": "tone"}]
    opacity = "datum.trial === focus ? 1 : !datum.inside ? 0.06 : datum.won ? 1 : 0.25 + 0.1 * datum.tone"
    width = "datum.trial === focus ? 4.5 : datum.won ? 3 : 1.5"
    shown = {"stroke": stroke, "strokeOpacity": {"signal": opacity}, "strokeWidth": {"signal": width}}
    hidden = {"stroke": {"value": "transparent"}, "strokeWidth": {"value": 9}}
    return {
        "type": "group",
        "from": {"facet": {"name": "line", "data": "places", "groupby": "trial"}},
        "marks": [
            {"type": "line", "from": {"data": "line"}, "encode": {"enter": at, "update": {**at, **look}}}
            for look in (shown, hidden)
        ],
    }


def _titles(axes: Sequence[Axis]) -> list[Spec]:
    return [
        {
            "type": "text",
            "interactive": False,
            "encode": {
                "update": {
                    "x": {"scale": "x", "value": f"a{i}"},
                    "y": {"value": -16 - 13 * axis.label.count(" ")},
                    "align": {"value": "center"},
                    "baseline": {"value": "bottom"},
                    "text": {"value": axis.label.split(" ")},
                    "limit": {"value": 110},
                    "fill": {"value": INK},
                }
            },
        }
        for i, axis in enumerate(axes)
    ]


def _grips(axes: int, depth: float) -> list[Spec]:
    return [mark for i in range(axes) for mark in (_band(i), _grip(i, depth))]


def _band(place: int) -> Spec:
    """Return the rectangle that shows what is brushed on an axis."""
    name = _brush(place)
    ends = {
        "x": {"scale": "x", "value": f"a{place}", "offset": -8},
        "width": {"value": 16},
        "y": {"signal": f"{name} ? scale('y', max({name}[0], {name}[1])) : 0"},
        "y2": {"signal": f"{name} ? scale('y', min({name}[0], {name}[1])) : 0"},
        "fill": {"value": ACCENT},
        "fillOpacity": {"value": 0.28},
    }
    return {"type": "rect", "interactive": False, "encode": {"update": ends}}


def _grip(place: int, depth: float) -> Spec:
    """Return the strip that reacts to dragging, down to ``depth`` times the height of the axes."""
    strip = {
        "x": {"scale": "x", "value": f"a{place}", "offset": -GRIP / 2},
        "width": {"value": GRIP},
        "y": {"value": -10},
        "y2": {"value": HEIGHT * depth + 12},
        "fill": {"value": "transparent"},
        "cursor": {"value": "ns-resize"},
    }
    return {"type": "rect", "name": f"grip_{place}", "encode": {"update": strip}}


def _unused_label() -> Spec:
    words = {
        "x": {"value": 0},
        "y": {"value": HEIGHT * (1 - UNUSED)},
        "baseline": {"value": "middle"},
        "text": {"value": "not used"},
        "fill": {"value": MUTED},
        "fontSize": {"value": 11},
    }
    return {"type": "text", "interactive": False, "encode": {"update": words}}
