"""The points of a front, as ``unfreeze promote`` asks which of them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from search.records.formatting import objective
from search.records.pareto import knee, losses
from search.registry.front_versions import FrontVersion


def front_table(points: Sequence[FrontVersion], champion: str | None) -> Table:
    """A row a point: its trial, its version, the objectives as its trial reached them, and what is special about it.

    Test accuracies are left out on purpose: who chooses by them uses the test images up.
    """
    names = list(points[0].values)
    placed = [losses(point.values, names) for point in points]
    whole = [point for point in placed if point is not None]
    middle = placed.index(whole[knee(whole)]) if len(whole) > 2 else None
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    for head in ("trial", "version", *names):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("")
    for place, point in enumerate(points):
        words = _special(placed, place, names)
        words += ["knee"] if place == middle else []
        words += ["champion now"] if point.version.version == champion else []
        values = (_shown(name, point.values[name]) for name in names)
        table.add_row(str(point.trial), point.version.version, *values, Text(", ".join(words), "dim"))
    return table


def _special(placed: Sequence[tuple[float, ...] | None], place: int, names: Sequence[str]) -> list[str]:
    own = placed[place]
    if own is None:
        return []
    columns = list(zip(*(point for point in placed if point is not None), strict=True))
    ranges = [(min(column), max(column)) for column in columns]
    best = [
        own[k] == low < high for k, (low, high) in enumerate(ranges)
    ]  # nothing is best where all are equal
    return [f"best {name}" for name, first in zip(names, best, strict=True) if first]


def _shown(name: str, value: float) -> str:
    if name == "parameters":
        return f"{value:,.0f}"
    return f"{value:.4g}" if name in ("latency_ms", "megabytes") else objective(value)
