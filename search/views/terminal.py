"""Shows progress on a terminal: a panel that redraws itself in place, as tall as the terminal.

The panel has a header, the stage of other work, a progress bar, counts, the best configuration, the nodes of a cluster
and a table of trials.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from search.execution.cluster.node_usage import NodeUsage
from search.records.formatting import (
    format_objective,
    parameter_phrases,
    search_subject,
    state_counts,
    values_phrase,
)
from search.records.record import SearchRecord
from search.records.units import format_duration
from search.views.node_table import node_table, nodes_summary
from search.views.remaining_time import remaining_seconds
from search.views.trial_table import STYLES, terminal_trial_table

FRAMES_PER_SECOND = 2.0
logger = logging.getLogger(__name__)

_SPINNER = Spinner("dots", style="cyan")
_ASCII_SPINNER = Spinner("line", style="cyan")
_MIN_TABLE_ROWS = 3
_MAX_FRONT_POINTS = 5
"""Points of the Pareto front in the panel."""


@dataclass(frozen=True)
class Stage:
    """Work other than trials, such as preparing data; ``total`` is 0 if it is not known."""

    name: str
    done: int
    total: int


@dataclass(frozen=True)
class PanelState:
    """What the panel shows at one moment.

    Attributes:
        record: the search, or the baseline, whose trials run now.
        previous: the search that ended before the baseline in ``record`` began.
        stage: work other than trials, if there is any.
        elapsed: seconds since the command started.
        since_update: seconds since ``record`` was received.
        nodes: nodes of the cluster; empty on a single machine.
    """

    record: SearchRecord | None
    previous: SearchRecord | None
    stage: Stage | None
    elapsed: float
    since_update: float
    nodes: tuple[NodeUsage, ...] = ()


class TerminalView:
    """A view that draws a panel twice a second, however often it is updated.

    The panel fills the terminal and disappears when the search is over. Events are printed above it and stay.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._record: SearchRecord | None = None
        self._previous: SearchRecord | None = None
        self._stage: Stage | None = None
        self._began = self._updated = time.monotonic()
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._over = False
        self._nodes: tuple[NodeUsage, ...] = ()

    def event(self, message: str) -> None:
        """Print a line above the panel."""
        self._start()
        self._console.print(Text(message, style="dim"))

    def stage(self, name: str, done: int, total: int) -> None:
        """Show the stage until it is done or replaced; a stage without a total ends with the next update."""
        with self._lock:
            self._stage = None if total and done >= total else Stage(name, done, total)
        self._start()

    def update(self, record: SearchRecord) -> None:
        """Show ``record`` in the next frame."""
        with self._lock:
            if self._record is not None and self._record.name != record.name:
                self._previous = self._record
            if self._stage is not None and not self._stage.total:
                self._stage = None
            self._record, self._updated = record, time.monotonic()
        self._start()

    def nodes(self, nodes: tuple[NodeUsage, ...]) -> None:
        """Show ``nodes`` in the next frame."""
        with self._lock:
            self._nodes = nodes

    def close(self) -> None:
        """Remove the panel and restore the terminal."""
        with self._lock:
            self._over, live, self._live = True, self._live, None
        if live is not None:  # outside of the lock, as in _start()
            live.stop()

    def draw(self) -> RenderableType:
        """Return the panel at this moment; called by the thread that draws."""
        now = time.monotonic()
        with self._lock:
            clocks = now - self._began, now - self._updated
            state = PanelState(self._record, self._previous, self._stage, *clocks, self._nodes)
        try:
            return panel(state, self._console)
        except Exception:  # the drawing thread has no caller that could handle an error
            logger.exception("the progress panel failed and is off; the search goes on")
            self._over = True
            return Text("")

    def _start(self) -> None:
        with self._lock:
            if self._live is not None or self._over:
                return
            self._live = live = Live(
                console=self._console,
                get_renderable=self.draw,
                refresh_per_second=FRAMES_PER_SECOND,
                transient=True,
            )
        # Outside of the lock: Live draws under a lock of its own and then calls draw(), which takes ours.
        live.start(refresh=True)


def panel(state: PanelState, console: Console) -> RenderableType:
    """Return the whole panel, no taller than the screen of ``console``."""
    record = state.record
    parts: list[RenderableType] = [_header(record, state.elapsed, console.width)]
    if record is not None:
        parts += [
            _dim(search_subject(record)),
            Text(),
            _bar(record, record.elapsed + state.since_update),
            _counts(record),
        ]
    if state.stage is not None:
        parts += [_stage(state.stage, console)]
    if record is not None:
        parts += [Text(), *_best(record, console.width), *_front(record, console.height)]
        if state.previous is not None:
            parts += _reminder(state.previous)
        parts += _nodes(state, console)
        free = console.height - _height(parts) - 3
        if record.trials and free >= _MIN_TABLE_ROWS:
            parts += [Text(), terminal_trial_table(record, free, console.width, _ascii(console))]
    # A panel as tall as the screen would scroll it by a line with every frame.
    return Group(*parts[: max(console.height - 1, 1)])


def _header(record: SearchRecord | None, elapsed: float, width: int) -> Text:
    name = "" if record is None else f"  {record.name}"
    clock = format_duration(elapsed)
    line = Text.assemble(("unfreeze", "bold cyan"), (name, "bold"))
    line.truncate(max(width - len(clock) - 2, 8), overflow="ellipsis")
    line.append(" " * max(width - cell_len(line.plain) - len(clock), 1))
    return line.append(clock, style="dim")


def _bar(record: SearchRecord, elapsed: float) -> RenderableType:
    finished = sum(t.finished for t in record.trials)
    left = remaining_seconds(record, elapsed)
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_row(
        ProgressBar(
            total=max(record.requested, 1), completed=finished, complete_style="cyan", finished_style="green"
        ),
        Text(f"{finished} of {record.requested} trials"),
        Text("" if not left else f"about {format_duration(left)} left", style="dim"),
    )
    return grid


def _counts(record: SearchRecord) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    for words, count in state_counts(record):
        line.append(" · " if line else "", style="dim").append(
            f"{count} {words}", style=STYLES.get(words, "dim")
        )
    return line


def _stage(stage: Stage, console: Console) -> RenderableType:
    grid = Table.grid(padding=(0, 1, 0, 0))
    amount = f"{stage.done:,} of {stage.total:,}" if stage.total else ""
    grid.add_row(
        _ASCII_SPINNER if _ascii(console) else _SPINNER,
        Text(stage.name, style="cyan"),
        Text(amount, style="dim"),
    )
    return grid


def _best(record: SearchRecord, width: int) -> list[RenderableType]:
    best = record.best
    if best is None:
        return [Text("best   no trial has finished yet", style="dim")]
    head = Text.assemble(
        ("best   ", "bold"),
        (f"{record.metric} ", ""),
        (format_objective(best.value), "bold green"),
        (f"   trial {best.number}", "dim"),
    )
    return [
        head,
        *(Text(" " * 7 + line) for line in _wrapped(list(parameter_phrases(best.params)), width - 8)),
    ]


def _front(record: SearchRecord, height: int) -> list[RenderableType]:
    """With several objectives, points of the Pareto front, in at most a fifth of the screen."""
    most = max(1, min(_MAX_FRONT_POINTS, height // 5))
    lines: list[RenderableType] = []
    for trial in record.front[:most]:
        line = Text.assemble(
            ("       " if lines else "front  ", "bold"), (values_phrase(trial.objectives), "green")
        )
        line.no_wrap, line.overflow = True, "ellipsis"
        lines.append(line.append(f"   trial {trial.number}", style="dim"))
    more = [_dim(f"       and {len(record.front) - most} more")] if len(record.front) > most else []
    return lines + more


def _nodes(state: PanelState, console: Console) -> list[RenderableType]:
    """Return a summary line and a table of the nodes, in at most a third of the screen."""
    if not state.nodes:
        return []
    rows = min(len(state.nodes), console.height // 3 - 3)
    trials = state.record.trials if state.record else ()
    line = Text.assemble(("nodes  ", "bold"), (nodes_summary(state.nodes), ""))
    line.no_wrap, line.overflow = True, "ellipsis"
    table = [node_table(state.nodes, trials, rows, _ascii(console))] if rows > 0 else []
    return [Text(), line, *table]


def _height(parts: list[RenderableType]) -> int:
    return sum(part.row_count if isinstance(part, Table) and part.row_count else 1 for part in parts)


def _reminder(previous: SearchRecord) -> list[RenderableType]:
    best = previous.best
    return (
        []
        if best is None
        else [_dim(f"       {previous.name} had {format_objective(best.value)} (trial {best.number})")]
    )


def _dim(words: str) -> Text:
    return Text(words, style="dim", no_wrap=True, overflow="ellipsis")


def _wrapped(parts: list[str], width: int) -> list[str]:
    """``parts`` joined by dots into lines of at most ``width`` characters; a part is never broken."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 3 + len(part) <= width:
            lines[-1] += " · " + part
        else:
            lines.append(part)
    return lines


def _ascii(console: Console) -> bool:
    return not console.encoding.lower().startswith("utf")
