"""Progress on a terminal: a panel that redraws itself in place.

The live panel: header, stage, bar, counts, best configuration, trial table; as tall as the terminal.
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

from search.execution.engines.node_usage import NodeUsage
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
from search.views.trial_table import STYLES, trial_table

_SPINNER = Spinner("dots", style="cyan")
_ASCII_SPINNER = Spinner("line", style="cyan")
_FEWEST_ROWS = 3
_POINTS = 5
"""Of the front, that are shown."""


@dataclass(frozen=True)
class Stage:
    """Work other than trials; ``total`` 0 where it is not known."""

    name: str
    done: int
    total: int


@dataclass(frozen=True)
class PanelState:
    """What there is to show: the trials that run now, those of the phase before, and two clocks in seconds.

    ``elapsed`` counts since the command began, ``since`` since ``record`` was told. ``nodes`` are those of the cluster,
    if it is one.
    """

    record: SearchRecord | None
    before: SearchRecord | None
    stage: Stage | None
    elapsed: float
    since: float
    nodes: tuple[NodeUsage, ...] = ()


def panel(shown: PanelState, console: Console) -> RenderableType:
    """Everything that the screen shows, no taller than the screen."""
    record = shown.record
    parts: list[RenderableType] = [_header(record, shown.elapsed, console.width)]
    if record is not None:
        parts += [
            _dim(search_subject(record)),
            Text(),
            _bar(record, record.elapsed + shown.since),
            _counts(record),
        ]
    if shown.stage is not None:
        parts += [_stage(shown.stage, console)]
    if record is not None:
        parts += [Text(), *_best(record, console.width), *_front(record, console.height)]
        if shown.before is not None:
            parts += _reminder(shown.before)
        parts += _nodes(shown, console)
        free = console.height - _height(parts) - 3
        if record.trials and free >= _FEWEST_ROWS:
            parts += [Text(), trial_table(record, free, console.width, _ascii(console))]
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
    """With several objectives, points that no other trial beats, in a fifth of the screen."""
    most = max(1, min(_POINTS, height // 5))
    lines: list[RenderableType] = []
    for trial in record.front[:most]:
        line = Text.assemble(
            ("       " if lines else "front  ", "bold"), (values_phrase(trial.objectives), "green")
        )
        line.no_wrap, line.overflow = True, "ellipsis"
        lines.append(line.append(f"   trial {trial.number}", style="dim"))
    more = [_dim(f"       and {len(record.front) - most} more")] if len(record.front) > most else []
    return lines + more


def _nodes(shown: PanelState, console: Console) -> list[RenderableType]:
    """A line, and the nodes themselves in a third of the screen."""
    if not shown.nodes:
        return []
    rows = min(len(shown.nodes), console.height // 3 - 3)
    trials = shown.record.trials if shown.record else ()
    line = Text.assemble(("nodes  ", "bold"), (nodes_summary(shown.nodes), ""))
    line.no_wrap, line.overflow = True, "ellipsis"
    table = [node_table(shown.nodes, trials, rows, _ascii(console))] if rows > 0 else []
    return [Text(), line, *table]


def _height(parts: list[RenderableType]) -> int:
    return sum(part.row_count if isinstance(part, Table) and part.row_count else 1 for part in parts)


def _reminder(before: SearchRecord) -> list[RenderableType]:
    best = before.best
    return (
        []
        if best is None
        else [_dim(f"       {before.name} had {format_objective(best.value)} (trial {best.number})")]
    )


def _dim(words: str) -> Text:
    return Text(words, style="dim", no_wrap=True, overflow="ellipsis")


def _wrapped(parts: list[str], width: int) -> list[str]:
    """``parts`` joined by dots in lines of at most ``width``, never breaking one."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 3 + len(part) <= width:
            lines[-1] += " · " + part
        else:
            lines.append(part)
    return lines


def _ascii(console: Console) -> bool:
    return not console.encoding.lower().startswith("utf")


FRAMES_PER_SECOND = 2.0
logger = logging.getLogger(__name__)


class TerminalView:
    """Draws twice a second from what it was last told, whatever the pace of the calls.

    The panel takes as many lines as the terminal has and vanishes when the search is over; events stay above.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._record: SearchRecord | None = None
        self._before: SearchRecord | None = None
        self._stage: Stage | None = None
        self._began = self._told = time.monotonic()
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._over = False
        self._nodes: tuple[NodeUsage, ...] = ()

    def event(self, message: str) -> None:
        """A line above the panel."""
        self._start()
        self._console.print(Text(message, style="dim"))

    def stage(self, name: str, done: int, total: int) -> None:
        """Shown until it is done or another begins; without a total, until there is any other news."""
        with self._lock:
            self._stage = None if total and done >= total else Stage(name, done, total)
        self._start()

    def update(self, record: SearchRecord) -> None:
        """Keep ``record`` for the next frame."""
        with self._lock:
            if self._record is not None and self._record.name != record.name:
                self._before = self._record
            if self._stage is not None and not self._stage.total:
                self._stage = None
            self._record, self._told = record, time.monotonic()
        self._start()

    def nodes(self, nodes: tuple[NodeUsage, ...]) -> None:
        """Keep ``nodes`` for the next frame."""
        with self._lock:
            self._nodes = nodes

    def close(self) -> None:
        """Take the panel away and give the terminal back."""
        with self._lock:
            self._over, live, self._live = True, self._live, None
        if live is not None:
            live.stop()

    def draw(self) -> RenderableType:
        """The panel as it is now."""
        now = time.monotonic()
        with self._lock:
            clocks = now - self._began, now - self._told
            shown = PanelState(self._record, self._before, self._stage, *clocks, self._nodes)
        try:
            return panel(shown, self._console)
        except Exception:  # in the thread that draws, where no caller could take it
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
        live.start(refresh=True)
