"""Format measurements as Markdown: medians over runs, and ratios to the first contender."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from benchmarks.measurement.measure import Measurement

COLUMNS = (
    ("whole, s", "whole"),
    ("trials, s", "trials_seconds"),
    ("fixed, s", "fixed"),
    ("s a trial", "marginal"),
)


def table(measurements: Iterable[Measurement], base: str) -> str:
    """A Markdown table with one row per contender and its times relative to ``base``."""
    rows = list(measurements)
    names = list(dict.fromkeys(row.contender for row in rows))
    of = {name: [row for row in rows if row.contender == name] for name in names}
    head = ["contender", "runs", *(title for title, _ in COLUMNS), "whole ÷", "trials ÷", "a trial ÷"]
    lines = [
        _line([*head, "best", "mean", "processor, s", "load"]),
        _line(["---", *["---:"] * (len(head) + 3)]),
    ]
    for name in names:
        values = {field: _median(of[name], field) for _, field in COLUMNS}
        cells = [name, str(len(of[name])), *(f"{value:.2f}" for value in values.values())]
        for field in ("whole", "trials_seconds", "marginal"):
            reference = _median(of[base], field) if base in of else 0.0
            cells.append(f"{values[field] / reference:.1f}×" if reference > 0 else "")
        loads = [load for row in of[name] for load in row.load]
        accuracies = [f"{_median(of[name], field):.3f}" for field in ("best", "average")]
        processor = f"{median(sum(row.processor.values()) for row in of[name]):.0f}"
        lines.append(_line([*cells, *accuracies, processor, f"{min(loads):.1f}–{max(loads):.1f}"]))
    return "\n".join(lines)


def stages(measurement: Measurement, concurrent: int) -> str:
    """A table of the time of one run's trials by stage, in seconds and as a share of the time of all lanes."""
    lanes = measurement.trials_seconds * concurrent
    known = dict(sorted(measurement.stages.items(), key=lambda item: -item[1]))
    rows = [*known.items(), ("none of these", lanes - sum(known.values()))]
    lines = [_line(["stage", "seconds", "share"]), _line(["---", "---:", "---:"])]
    lines += [_line([name, f"{seconds:.1f}", f"{seconds / lanes:.0%}"]) for name, seconds in rows]
    return "\n".join(lines)


def processor(measurement: Measurement) -> str:
    """A table of the processor seconds of one run by kind of process."""
    rows = sorted(measurement.processor.items(), key=lambda item: -item[1])
    lines = [_line(["process", "processor, s"]), _line(["---", "---:"])]
    return "\n".join([*lines, *(_line([kind, f"{seconds:.1f}"]) for kind, seconds in rows)])


def _median(rows: Sequence[Measurement], field: str) -> float:
    return float(median(getattr(row, field) for row in rows))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
