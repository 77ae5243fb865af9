"""The table of ``unfreeze score``: a row a backbone, its k-NN accuracy as a dot with its interval."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from search.records.formatting import magnitude, percent, plural
from search.records.record import Interval
from search.records.scores import Scoring, words
from search.records.units import format_duration

PLOT = 18
"""Characters of the plot."""


def print_scoring(scoring: Scoring, console: Console) -> None:
    """Everything that a person wants to know of it; the terminal, not this program, breaks long sentences."""
    for part in scoring_page(scoring, _plain(console)):
        console.print(part, highlight=False, soft_wrap=isinstance(part, Text))


def scoring_page(scoring: Scoring, ascii_only: bool = False) -> list[RenderableType]:
    """Headline, tables, what failed, how alike backbones are, how to read it."""
    head = Text.assemble((scoring.task, "bold"))
    head.append(f": {plural(scoring.images, 'image')} of {plural(scoring.classes, 'class')}, k-NN of ")
    head.append(f"{scoring.neighbours} neighbours, ").append(format_duration(scoring.elapsed), "bold")
    parts: list[RenderableType] = [head, Text(), score_table(scoring, ascii_only)]
    if scoring.source is not None:
        parts += [Text(f"\nbeside the source {scoring.source}:"), source_table(scoring)]
    for name, reason in scoring.failed.items():
        parts.append(Text(f"{name}: not scored: {reason}", "red"))
    alike = sorted(scoring.alike.items(), key=lambda pair: -pair[1])[:3]
    if alike:
        pairs = ", ".join(f"{a} and {b} {cka:.2f}" for (a, b), cka in alike)
        parts.append(Text(f"\nalike in their features (CKA, 1 = the same but for rotation): {pairs}"))
    said = [sentence.replace("≈", _mark(ascii_only)) for sentence in words(scoring)]
    return [*parts, Text(), *(Text(sentence, "dim") for sentence in said)]


def score_table(scoring: Scoring, ascii_only: bool) -> Table:
    """The backbones in order."""
    low, high = _span(scoring)
    table = _table()
    table.add_column("k-NN", justify="right", no_wrap=True)
    table.add_column(f"{percent(low)}{percent(high):>{PLOT - len(percent(low))}}", no_wrap=True)
    for name in ("LogME", "H-score", "CKA", "weights"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, scores in enumerate(scoring.backbones):
        mark = f"{_mark(ascii_only)} " if scores.tied else ""
        table.add_row(
            Text(scores.name, "bold green" if number == 0 else ""),
            Text(f"{mark}{percent(scores.knn.estimate)}", "bold" if number == 0 else ""),
            Text(dot_plot(scores.knn, low, high, ascii_only), "green" if number == 0 else "cyan"),
            *map(_number, (scores.logme, scores.h_score, scores.label_cka)),
            magnitude(scores.parameters),
        )
    return table


def source_table(scoring: Scoring) -> Table:
    """What is known of the backbones that have a source."""
    table = _table()
    for name in ("LEEP", "NCE", "MMD²", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for scores in scoring.backbones:
        if scores.likeness is not None:
            found = scores.likeness
            cells = (found.leep, found.nce, found.mmd_squared, found.mmd_p_value)
            table.add_row(Text(scores.name), *map(_number, cells))
    return table


def dot_plot(interval: Interval, low: float, high: float, ascii_only: bool, width: int = PLOT) -> str:
    """``  ├──●──┤``: the estimate and its interval between ``low`` and ``high``, ``width`` characters."""
    line, dot, left, right = ("-", "o", "|", "|") if ascii_only else ("─", "●", "├", "┤")
    scale = (width - 1) / (high - low) if high > low else 0.0
    first, middle, last = (
        min(width - 1, max(0, round((value - low) * scale)))
        for value in (interval.low, interval.estimate, interval.high)
    )
    marks = [line if first < i < last else " " for i in range(width)]
    marks[first], marks[last] = left, right
    marks[middle] = dot
    return "".join(marks)


def _table() -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    table.add_column("backbone", overflow="fold", min_width=14)
    return table


def _mark(ascii_only: bool) -> str:
    """Of backbones that can't be told from the first."""
    return "~" if ascii_only else "≈"


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _span(scoring: Scoring) -> tuple[float, float]:
    """From the lowest end of an interval to the highest, in whole percents."""
    low = min(scores.knn.low for scores in scoring.backbones)
    high = max(scores.knn.high for scores in scoring.backbones)
    return int(100 * low) / 100, min(1.0, (int(100 * high) + 1) / 100)


def _plain(console: Console) -> bool:
    return not (console.encoding or "").lower().startswith("utf")
