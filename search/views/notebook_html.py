"""A search as HTML for notebooks: its progress, and what came of it. Styles are inline: notebooks drop the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

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
from search.records.units import format_duration

MAX_ROWS = 12
"""Most trials of a table."""

_COLOURS = {"running": "#0a7ea8", "complete": "#2e8b57", "pruned": "#8a8f98", "failed": "#c0392b"}
_WINNER = "#c77800"
_DIM = "opacity:.65"
_CURVE_WIDTH, _CURVE_HEIGHT = 90, 18
_VERDICTS = {
    "helps": "transfer helps",
    "no difference": "no difference",
    "negative transfer": "training from scratch is better",
}


def progress_html(record: SearchRecord, stage: str, message: str) -> str:
    """A search on its way: a bar, counts, the best so far, trials with their curves; and what else goes on."""
    finished = sum(t.finished for t in record.trials)
    counts = " · ".join(f"{count} {words}" for words, count in state_counts(record))
    head = f"<b>{escape(record.name)}</b>: {finished} of {plural(record.requested, 'trial')}"
    lines = [
        f"<div>{head} <span style='{_DIM}'>· {counts} · {format_duration(record.elapsed)}</span></div>",
        _bar(finished / max(record.requested, 1)),
        _best(record),
        *(f"<div style='{_DIM}'>{escape(line)}</div>" for line in (stage, message) if line),
        trials_html(record, _newest(record)),
    ]
    return _block(lines)


def result_html(record: SearchRecord) -> str:
    """A search that is over: the winner, the gain and the top trials."""
    lines = [f"<div style='font-size:1.15em'><b>{escape(record.name)}</b>: {_headline(record)}</div>"]
    if record.outcome is not None:
        lines.append(f"<div>{_gain_line(record.outcome)}</div>")
    cost = f"{plural(len(record.trials), 'trial')} in {format_duration(record.elapsed)}"
    counts = ", ".join(f"{count} {words}" for words, count in state_counts(record) if words != "to come")
    lines.append(f"<div style='{_DIM}'>{cost} ({counts})</div>")
    top = _top(record, 5)
    return _block([*lines, trials_html(record, top)])


def trials_html(record: SearchRecord, trials: Sequence[TrialRecord]) -> str:
    """A table of trials with their learning curves; the best one is marked."""
    if not trials:
        return ""
    names = [n for n in COLUMN_HEADINGS if any(n in t.params for t in trials)]
    names += sorted({n for t in trials for n in t.params} - set(names))
    heads = ["trial", "state", "epochs", record.metric, "curve", *names]
    span = _span(trials, record.metric)
    rows = "".join(_row(t, record, names, span) for t in trials)
    head = "".join(f"<th style='text-align:left'>{escape(h)}</th>" for h in heads)
    return f"<table style='margin-top:.5em'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def curve_svg(values: Sequence[float], low: float, high: float, most: int, colour: str) -> str:
    """A learning curve as a small drawing, as wide as its share of ``most`` epochs."""
    height = _CURVE_HEIGHT
    spots = [
        (1 + (_CURVE_WIDTH - 4) * i / max(most - 1, 1), height - 2 - (height - 4) * _share(v, low, high))
        for i, v in enumerate(values)
        if math.isfinite(v)
    ]
    if not spots:
        return ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    x, y = spots[-1]
    return (
        f"<svg width='{_CURVE_WIDTH}' height='{height}' role='img' aria-label='learning curve'>"
        f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.5'/>"
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2' fill='{colour}'/></svg>"
    )


def _block(lines: Iterable[str]) -> str:
    return f"<div style='line-height:1.5'>{''.join(lines)}</div>"


def _bar(share: float) -> str:
    done = f"width:{100 * share:.0f}%;height:100%;background:{_COLOURS['running']};border-radius:3px"
    return (
        "<div style='background:rgba(128,128,128,.25);height:6px;max-width:40em;border-radius:3px;margin:.3em 0'>"
        f"<div style='{done}'></div></div>"
    )


def _best(record: SearchRecord) -> str:
    best = record.best
    if best is None:
        return ""
    words = f"<span style='{_DIM}'>({escape(', '.join(parameter_phrases(best.params)))})</span>"
    return f"<div>best: <b>{format_objective(best.value)}</b> in trial {best.number} {words}</div>"


def _headline(record: SearchRecord) -> str:
    best = record.best
    if best is None:
        return "no trial has a result"
    outcome = record.outcome
    if outcome is None:
        return f"trial {best.number} is best, with {record.metric} <b>{format_objective(best.value)}</b>"
    test = outcome.test_accuracy
    return (
        f"trial {outcome.trial} wins with <b>{format_percent(test.estimate)}</b> on test images "
        f"<span style='{_DIM}'>(95 % interval {100 * test.low:.1f} to {format_percent(test.high)})</span>"
    )


def _gain_line(outcome: Outcome) -> str:
    gain = outcome.gain
    if gain is None:
        return "Nothing was trained from scratch to compare with."
    verdict = _VERDICTS.get(outcome.verdict or "", "no verdict")
    return (
        f"<b>{format_points(gain.estimate)} points</b> over training from scratch "
        f"<span style='{_DIM}'>(95 % interval {format_points(gain.low)} to "
        f"{format_points(gain.high)})</span>: {verdict}."
    )


def _newest(record: SearchRecord) -> list[TrialRecord]:
    """Running trials first, then the newest; the best is always among them."""
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


def _row(trial: TrialRecord, record: SearchRecord, names: Sequence[str], span: tuple[float, float]) -> str:
    best = record.best
    winner = best is not None and best.number == trial.number
    colour = _WINNER if winner else _COLOURS.get(trial.state, _COLOURS["pruned"])
    epochs = record.config.get("epochs")
    most = max([len(t.epochs) for t in record.trials] + ([epochs] if isinstance(epochs, int) else []))
    curve = curve_svg([e.metric(record.metric) for e in trial.epochs], *span, most, colour)
    cells = [
        f"{'★ ' if winner else ''}{trial.number}",
        f"<span style='color:{colour}'>{escape(ending_phrase(trial))}</span>",
        str(len(trial.epochs)),
        f"<b>{format_objective(trial.value)}</b>" if winner else format_objective(trial.value),
        curve,
        *(escape(format_value(trial.params.get(n))) for n in names),
    ]
    return "<tr>" + "".join(f"<td style='text-align:left'>{cell}</td>" for cell in cells) + "</tr>"


def _span(trials: Sequence[TrialRecord], metric: str) -> tuple[float, float]:
    values = [v for t in trials for e in t.epochs if math.isfinite(v := e.metric(metric))]
    return (min(values), max(values)) if values else (0.0, 1.0)


def _share(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5
