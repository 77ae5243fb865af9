"""Renders a search as HTML for notebooks: its progress while it runs, and its result when it is over.

The HTML is in ``templates/notebook_*.html.j2``; this module computes what they show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from search.records.end_reasons import PROBE_VERDICTS, VERDICTS
from search.records.formatting import (
    COLUMN_HEADINGS,
    ending_phrase,
    format_objective,
    format_percent,
    format_points,
    format_value,
    parameter_phrases,
    plural,
    state_counts,
)
from search.records.record import Outcome, SearchRecord, TrialRecord
from search.records.stats.intervals import probe_verdict
from search.records.units import format_duration

MAX_ROWS = 12
"""Trials in the table of a running search."""

RESULT_ROWS = 5
"""Trials in the table of a finished search."""

_COLOURS = {"running": "#0a7ea8", "complete": "#2e8b57", "pruned": "#8a8f98", "failed": "#c0392b"}
_BEST_COLOUR = "#c77800"
_CURVE_WIDTH, _CURVE_HEIGHT = 90, 18


@dataclass(frozen=True)
class _Curve:
    """A learning curve as an SVG polyline: its points, and the last of them; all in pixels."""

    width: int
    height: int
    path: str
    end: tuple[str, str]


@dataclass(frozen=True)
class _Row:
    """One trial of the table, with all values formatted."""

    number: int
    best: bool
    colour: str
    ending: str
    epochs: int
    value: str
    curve: _Curve | None
    params: tuple[str, ...]


@dataclass(frozen=True)
class _Table:
    """Trials with their learning curves."""

    headings: tuple[str, ...]
    rows: tuple[_Row, ...]


def progress_html(record: SearchRecord, stage: str, message: str) -> str:
    """Return HTML for a running search: a bar, counts, the best trial, the running and newest trials.

    Args:
        stage: work other than trials, such as ``data: 32 of 1,797``; may be empty.
        message: the newest event; may be empty.
    """
    finished = sum(t.finished for t in record.trials)
    return _render(
        "notebook_progress.html.j2",
        name=record.name,
        finished=finished,
        requested=plural(record.requested, "trial"),
        counts=" · ".join(f"{count} {words}" for words, count in state_counts(record)),
        elapsed=format_duration(record.elapsed),
        percent_done=f"{100 * finished / max(record.requested, 1):.0f}",
        bar_colour=_COLOURS["running"],
        best=_best(record),
        lines=[line for line in (stage, message) if line],
        table=_table(record, _newest(record)),
    )


def result_html(record: SearchRecord) -> str:
    """Return HTML for a finished search: the winner, the gain over training from scratch, and the best trials."""
    return _render(
        "notebook_result.html.j2",
        name=record.name,
        metric=record.metric,
        best=_best(record),
        test=_test(record.outcome) if record.winner and record.outcome else None,
        gain=_gain(record.outcome) if record.outcome else None,
        probe=_probe(record.outcome) if record.outcome else None,
        trials=plural(len(record.trials), "trial"),
        elapsed=format_duration(record.elapsed),
        counts=", ".join(f"{count} {words}" for words, count in state_counts(record) if words != "to come"),
        table=_table(record, _top(record, RESULT_ROWS)),
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        # Names of searches, parameters and messages come from users, so everything is escaped.
        autoescape=True,
        undefined=StrictUndefined,
    )


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(**values)


def _best(record: SearchRecord) -> dict[str, object] | None:
    best = record.winner
    if best is None:
        return None
    return {
        "number": best.number,
        "value": format_objective(best.value),
        "parameters": ", ".join(parameter_phrases(best.params)),
    }


def _test(outcome: Outcome) -> dict[str, object]:
    test = outcome.headline_accuracy
    return {
        "trial": outcome.trial,
        "estimate": format_percent(test.estimate),
        "interval": f"(95 % interval {100 * test.low:.1f} to {format_percent(test.high)}; always the most frequent "
        f"class: {format_percent(outcome.majority_accuracy)})",
    }


def _probe(outcome: Outcome) -> dict[str, object] | None:
    word, gain = probe_verdict(outcome), outcome.probe_gain
    if word is None:
        return None
    return {
        "points": format_points(gain.estimate) if gain else None,
        "interval": f"(95 % interval {format_points(gain.low)} to {format_points(gain.high)})"
        if gain
        else "",
        "verdict": PROBE_VERDICTS[word].short,
    }


def _gain(outcome: Outcome) -> dict[str, object] | None:
    gain = outcome.gain
    if gain is None:
        return None
    verdict = VERDICTS.get(outcome.verdict or "")
    return {
        "points": format_points(gain.estimate),
        "interval": f"(95 % interval {format_points(gain.low)} to {format_points(gain.high)})",
        "verdict": verdict.short if verdict else "no verdict",
    }


def _newest(record: SearchRecord) -> list[TrialRecord]:
    """Return the running trials, then the newest finished ones; the best trial is always among them."""
    running = [t for t in record.trials if t.state == "running"]
    finished = [t for t in reversed(record.trials) if t.finished]
    shown = [*running, *finished][:MAX_ROWS]
    best = record.best
    if best is not None and best not in shown and len(shown) > 1:
        shown[-1] = best
    return shown


def _top(record: SearchRecord, count: int) -> list[TrialRecord]:
    sign = -1 if record.direction == "maximize" else 1
    known = [t for t in record.trials if t.value is not None and math.isfinite(t.value)]
    return sorted(known, key=lambda t: (sign * (t.value or 0.0), t.number))[:count]


def _table(record: SearchRecord, trials: Sequence[TrialRecord]) -> _Table:
    names = [n for n in COLUMN_HEADINGS if any(n in t.params for t in trials)]
    names += sorted({n for t in trials for n in t.params} - set(names))
    span = _span(trials, record.metric)
    return _Table(
        headings=("trial", "state", "epochs", record.metric, "curve", *names),
        rows=tuple(_row(t, record, names, span) for t in trials),
    )


def _row(trial: TrialRecord, record: SearchRecord, names: Sequence[str], span: tuple[float, float]) -> _Row:
    best = record.winner is not None and record.winner.number == trial.number
    epochs = record.config.get("epochs")
    max_epochs = max([len(t.epochs) for t in record.trials] + ([epochs] if isinstance(epochs, int) else []))
    return _Row(
        number=trial.number,
        best=best,
        colour=_BEST_COLOUR if best else _COLOURS.get(trial.state, _COLOURS["pruned"]),
        ending=ending_phrase(trial),
        epochs=len(trial.epochs),
        value=format_objective(trial.value),
        curve=_curve([e.metric(record.metric) for e in trial.epochs], span, max_epochs),
        params=tuple(format_value(trial.params.get(n)) for n in names),
    )


def _curve(values: Sequence[float], span: tuple[float, float], max_epochs: int) -> _Curve | None:
    """Return the curve over its share of ``max_epochs``; None if no value is finite."""
    width, height = _CURVE_WIDTH, _CURVE_HEIGHT
    points = [
        (
            f"{1 + (width - 4) * i / max(max_epochs - 1, 1):.1f}",
            f"{height - 2 - (height - 4) * _relative(v, *span):.1f}",
        )
        for i, v in enumerate(values)
        if math.isfinite(v)
    ]
    if not points:
        return None
    return _Curve(width, height, " ".join(f"{x},{y}" for x, y in points), points[-1])


def _span(trials: Sequence[TrialRecord], metric: str) -> tuple[float, float]:
    values = [v for t in trials for e in t.epochs if math.isfinite(v := e.metric(metric))]
    return (min(values), max(values)) if values else (0.0, 1.0)


def _relative(value: float, low: float, high: float) -> float:
    """Where ``value`` lies between ``low`` (0) and ``high`` (1)."""
    return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5
