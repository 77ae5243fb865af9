"""Draws the table of trials for the terminal: running trials first, then the newest, with learning curves as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from rich.table import Table
from rich.text import Text

from search.records.formatting import COLUMN_HEADINGS, ending_phrase, format_objective, format_value
from search.records.record import SearchRecord, TrialRecord

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-=^"


def sparkline(values: Sequence[float], low: float, high: float, width: int, ascii_only: bool = False) -> str:
    """Draw a curve as one line of text.

    Args:
        values: one for each epoch.
        low: value at the bottom of a character.
        high: value at its top.
        width: most characters; more values than that are averaged in equal parts.
        ascii_only: draw with ASCII characters.

    Returns:
        The line, with ``!`` for values that are not finite.
    """
    marks = _ASCII if ascii_only else _BLOCKS
    return "".join(_mark(value, low, high, marks) for value in _resample(values, width))


def _resample(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    cuts = [round(i * len(values) / width) for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]


def _mark(value: float, low: float, high: float, marks: str) -> str:
    if not math.isfinite(value):
        return "!"
    share = (value - low) / (high - low) if low < high else 0.5
    if not math.isfinite(share):  # the difference of two huge losses overflows
        return "!"
    return marks[min(len(marks) - 1, int(min(1.0, max(0.0, share)) * len(marks)))]


STYLES = {
    "running": "cyan",
    "complete": "green",
    "pruned": "bright_black",
    "failed": "red",
    "waiting": "dim",
    "to come": "dim",
}
COST_HEADS = {"latency_ms": "ms", "parameters": "params", "megabytes": "MB"}
"""Column headings of the costs that may be objectives."""

_NODE = 16
"""Most characters of a node's name."""

_FIXED = 36
"""Width of the columns before the curve, gaps included."""


def terminal_trial_table(record: SearchRecord, rows: int, width: int, ascii_only: bool) -> Table:
    """Return a table of at most ``rows`` trials with a heading, ``width`` characters wide; parameters as far as they
    fit.
    """
    chosen = _select_trials(record, rows)
    names = [name for name in COLUMN_HEADINGS if any(name in t.params for t in chosen)]
    most = _most_epochs(record)
    places = {t.number: t.node for t in chosen if t.node} if record.config.get("address") else {}
    extra = min(max(map(len, places.values()), default=4), _NODE) + 2 if places else 0
    costs = [name for name in record.objectives if name in COST_HEADS]
    extra += sum(len(COST_HEADS[name]) + 8 for name in costs)
    curve, names = _fit_columns(names, width - extra, most)
    low, high = _span(chosen, record.metric)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    table.add_column("#", justify="right", min_width=4)
    table.add_column("state", min_width=9, no_wrap=True)
    table.add_column("epoch", justify="right", min_width=5)
    table.add_column(_metric_head(record.metric), justify="right", min_width=8, no_wrap=True)
    for name in costs:
        table.add_column(COST_HEADS[name], justify="right", no_wrap=True)
    table.add_column("curve", min_width=curve, max_width=curve, no_wrap=True)
    if places:
        table.add_column("node", no_wrap=True, max_width=_NODE, overflow="ellipsis")
    for name in names:
        table.add_column(COLUMN_HEADINGS[name], justify="right", no_wrap=True)
    best = record.winner
    for trial in chosen:
        whole = record.planned_epochs(trial.method) or most
        part = max(1, round(curve * min(len(trial.epochs) / whole, 1.0)))
        line = sparkline([e.metric(record.metric) for e in trial.epochs], low, high, part, ascii_only)
        node = [places.get(trial.number, "")] if places else []
        table.add_row(
            *_cells(trial, record, best, costs, line),
            *node,
            *(format_value(trial.params.get(n)) for n in names),
        )
    return table


def _cells(
    trial: TrialRecord, record: SearchRecord, best: TrialRecord | None, costs: list[str], line: str
) -> list[Text | str]:
    style = "yellow" if trial.reason == "diverged" else STYLES[trial.state]
    winning = best is not None and trial.number == best.number
    return [
        Text(f"{'* ' if winning else ''}{trial.number}", style="bold green" if winning else ""),
        Text(ending_phrase(trial), style=style),
        _epochs(trial, record),
        Text(format_objective(trial.value), style="bold green" if winning else ""),
        *(Text(_cost(trial.objectives.get(name))) for name in costs),
        Text(line, style=style),
    ]


def _cost(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _epochs(trial: TrialRecord, record: SearchRecord) -> str:
    whole = record.planned_epochs(trial.method) or _most_epochs(record)
    return f"{len(trial.epochs)}/{whole}" if trial.state == "running" else f"{len(trial.epochs)}"


def _most_epochs(record: SearchRecord) -> int:
    asked = record.config.get("epochs")
    return asked if isinstance(asked, int) else max([1, *(len(t.epochs) for t in record.trials)])


def _select_trials(record: SearchRecord, rows: int) -> list[TrialRecord]:
    # On a large cluster running trials alone would fill the table: a third is for finished ones.
    running = [t for t in record.trials if t.state == "running"]
    finished = sorted((t for t in record.trials if t.finished), key=_ended, reverse=True)
    kept = min(len(finished), rows // 3)
    shown = [*running[: rows - kept], *finished][:rows]
    best = record.winner
    if best is not None and best not in shown and len(shown) > 1:  # the best is always shown
        shown[-1] = best
    return shown


def _ended(trial: TrialRecord) -> tuple[float, int]:
    return (trial.ended.timestamp() if trial.ended else 0.0, trial.number)


def _fit_columns(names: list[str], width: int, most: int) -> tuple[int, list[str]]:
    """Return the width of the curve, and the parameters that fit next to it."""
    shown = list(names)
    while shown and width - _FIXED - _columns_width(shown) < 10:
        shown.pop()
    return max(5, min(40, most, width - _FIXED - _columns_width(shown))), shown


def _columns_width(names: list[str]) -> int:
    return sum(
        max(len(COLUMN_HEADINGS[n]), 8 if n in ("learning_rate", "weight_decay") else 5) + 2 for n in names
    )


def _span(trials: list[TrialRecord], metric: str) -> tuple[float, float]:
    values = [v for t in trials for e in t.epochs if math.isfinite(v := e.metric(metric))]
    return (min(values), max(values)) if values else (0.0, 1.0)


def _metric_head(metric: str) -> str:
    return {"val_accuracy": "accuracy", "val_loss": "loss", "epoch_seconds": "seconds"}.get(metric, metric)
