"""Compute the table of all trials."""

from __future__ import annotations

import math
from dataclasses import dataclass

from search.records.formatting import without_secrets
from search.records.record import ParameterValue, SearchRecord, TrialRecord
from search.report.analysis.ranking import winner
from search.report.analysis.wording import format_metric, format_number, format_parameter

MAX_ERROR_LENGTH = 2000
"""Maximum number of characters of a traceback. Its end is kept, which contains the cause."""


@dataclass(frozen=True)
class Cell:
    """The text of a cell, and the key by which its column is sorted."""

    text: str
    key: float | str


@dataclass(frozen=True)
class Row:
    """One trial; ``cells`` are in the order of :attr:`TrialTable.columns`."""

    number: int
    state: str
    won: bool
    cells: tuple[Cell, ...]
    reason: str
    error: str


@dataclass(frozen=True)
class TrialTable:
    """The table. ``columns`` are (name, whether it holds numbers), without number, state and reason of the trial."""

    columns: tuple[tuple[str, bool], ...]
    rows: tuple[Row, ...]


def trial_table(record: SearchRecord) -> TrialTable:
    """Return every trial, ordered by its number."""
    names = list(dict.fromkeys(name for t in record.trials for name in t.params))
    methods = len({t.method for t in record.trials}) > 1 and "method" not in names
    won = winner(record)
    texts = [name for name in names if any(isinstance(t.params.get(name), str) for t in record.trials)]
    columns = [(name, name not in texts) for name in names]
    columns = [(record.metric, True), *columns, ("epochs", True), ("seconds", True)]
    return TrialTable(
        columns=tuple([("method", False), *columns] if methods else columns),
        rows=tuple(
            _row(record, trial, names, methods, won is trial)
            for trial in sorted(record.trials, key=lambda t: t.number)
        ),
    )


def _row(record: SearchRecord, trial: TrialRecord, names: list[str], methods: bool, won: bool) -> Row:
    cells = [
        Cell(format_metric(record.metric, trial.value), trial.value if trial.value is not None else ""),
        *[_parameter(name, trial.params.get(name)) for name in names],
        Cell(str(len(trial.epochs)), len(trial.epochs)),
        Cell(format_number(round(trial.seconds, 1)), trial.seconds)
        if math.isfinite(trial.seconds)
        else Cell("–", ""),
    ]
    return Row(
        number=trial.number,
        state=trial.state,
        won=won,
        cells=tuple([Cell(trial.method, trial.method), *cells] if methods else cells),
        reason=(trial.reason or "").replace("_", " "),
        error=_shortened(trial.error),
    )


def _parameter(name: str, value: ParameterValue | None) -> Cell:
    if value is None:
        return Cell("–", "")
    return Cell(format_parameter(name, value), value if isinstance(value, str) else float(value))


def _shortened(error: str | None) -> str:
    text = without_secrets((error or "").strip())
    return text if len(text) <= MAX_ERROR_LENGTH else "… " + text[-MAX_ERROR_LENGTH:]
