"""Describes the nodes of a cluster for terminal and log: used and free resources, and which trials run where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from search.execution.cluster.node_usage import NodeUsage
from search.records.formatting import plural
from search.records.record import TrialRecord


def nodes_summary(nodes: Sequence[NodeUsage]) -> str:
    """One line about all nodes: ``3 nodes · 5 of 12 CPUs and 2 of 3 GPUs in use``."""
    cpus = f"{_sum(n.cpus_used for n in nodes)} of {_sum(n.cpus for n in nodes)} CPUs"
    gpus = sum(n.gpus for n in nodes)
    shown = f"{cpus} and {_sum(n.gpus_used for n in nodes)} of {gpus:g} GPUs" if gpus else cpus
    return f"{plural(len(nodes), 'node')} · {shown} in use"


def node_table(
    nodes: Sequence[NodeUsage], trials: Iterable[TrialRecord], rows: int, ascii_only: bool
) -> Table:
    """Return a table of at most ``rows`` lines, the busiest nodes first.

    The last line counts the nodes that are left out.
    """
    where: dict[str, list[int]] = defaultdict(list)
    for trial in trials:
        if trial.state == "running" and trial.node:
            where[trial.node].append(trial.number)
    ranked = sorted(nodes, key=lambda n: (-len(where[n.name]), -n.gpus_used, -n.cpus_used, n.name))
    left = len(ranked) - rows  # if any are left out, the last row counts them
    shown = ranked if left <= 0 else ranked[: rows - 1]
    gpus = any(n.gpus for n in nodes)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, max_width=28, overflow="ellipsis")
    for _ in range(2 if gpus else 1):
        grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", style="cyan")
    for node in shown:
        cells = [
            node.name,
            f"{_bar(node.cpus_used, node.cpus, ascii_only)} {_of(node.cpus_used, node.cpus)} CPU",
        ]
        if gpus:
            cells.append(
                f"{_bar(node.gpus_used, node.gpus, ascii_only)} {_of(node.gpus_used, node.gpus)} GPU"
            )
        numbers = " ".join(map(str, sorted(where[node.name])))
        grid.add_row(*cells, f"trial{'s' if len(where[node.name]) > 1 else ''} {numbers}" if numbers else "")
    if left > 0:
        rest = ranked[rows - 1 :]
        grid.add_row(Text(f"and {plural(len(rest), 'node')} more", style="dim"))
    return grid


def _bar(used: float, whole: float, ascii_only: bool) -> str:
    if whole <= 0:
        return "    "
    full = min(4, max(0, round(4 * used / whole)))
    return ("#" if ascii_only else "■") * full + ("." if ascii_only else "□") * (4 - full)


def _of(used: float, whole: float) -> str:
    return f"{used:g}/{whole:g}"


def _sum(amounts: Iterable[float]) -> str:
    return f"{round(sum(amounts), 2):g}"
