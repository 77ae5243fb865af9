"""Prints progress as lines of text, for files, pipes and continuous integration."""

from __future__ import annotations

import math
import threading
import time
from typing import IO

from search.execution.cluster.node_usage import NodeUsage
from search.records.formatting import (
    ending_phrase,
    format_objective,
    objective_phrase,
    parameter_phrases,
    plural,
    search_subject,
    state_counts,
)
from search.records.record import SearchRecord, TrialRecord
from search.records.units import format_duration
from search.views.node_table import nodes_summary
from search.views.remaining_time import remaining_seconds

STAGE_EVERY = 30.0
"""Seconds between two lines about the same stage, or about the nodes."""


class PlainView:
    """A view that prints a line for each finished trial, and for a stage at its start, its end and every 30 s."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._known: set[int] | None = None
        self._stage: tuple[str, float] = ("", 0.0)
        self._nodes: tuple[NodeUsage, ...] = ()
        self._nodes_line, self._nodes_printed_at = "", 0.0

    def event(self, message: str) -> None:
        """Print a line."""
        with self._lock:
            self._print(message)

    def stage(self, name: str, done: int, total: int) -> None:
        """Print a line at the start and the end of a stage, and every 30 s in between."""
        with self._lock:
            last, printed_at = self._stage
            finished = bool(total) and done >= total
            if name == last and (
                printed_at == math.inf or (not finished and time.monotonic() - printed_at < STAGE_EVERY)
            ):
                return
            self._print(f"{name}: {done:,} of {total:,}" if done else name)
            # Infinity marks a stage whose end has been printed: later calls for it print nothing.
            self._stage = (name, math.inf if finished else time.monotonic())

    def update(self, record: SearchRecord) -> None:
        """Print a line for each trial that has finished since the last call."""
        with self._lock:
            if self._known is None:
                self._known = self._begin(record)
            new = [t for t in record.trials if t.finished and t.number not in self._known]
            for trial in new:
                self._known.add(trial.number)
                self._print(_line(trial, record))
            if new and not record.stopped:  # the rest of a search that stopped early never runs
                self._pace(record)

    def nodes(self, nodes: tuple[NodeUsage, ...]) -> None:
        """Print a line when the number of nodes changes, and every 30 s if the resources in use have changed."""
        with self._lock:
            line, now = nodes_summary(nodes), time.monotonic()
            changed = len(nodes) != len(self._nodes) or now - self._nodes_printed_at >= STAGE_EVERY
            if line != self._nodes_line and changed:
                self._print(line)
                self._nodes_line, self._nodes_printed_at = line, now
            self._nodes = nodes

    def close(self) -> None:
        """Nothing to do: every line has been printed."""

    def _begin(self, record: SearchRecord) -> set[int]:
        self._print(f"{record.name}: {plural(record.requested, 'trial')} · {search_subject(record)}")
        finished = {t.number for t in record.trials if t.finished}
        if finished:
            self._print(f"resuming after {plural(len(finished), 'finished trial')},{_best(record)}")
        return finished

    def _pace(self, record: SearchRecord) -> None:
        finished = sum(t.finished for t in record.trials)
        if finished % 10 == 0 and finished < record.requested:
            left = remaining_seconds(record, record.elapsed)
            rest = f", about {format_duration(left)} left" if left is not None else ""
            counts = ", ".join(f"{count} {words}" for words, count in state_counts(record))
            self._print(f"after {format_duration(record.elapsed)}: {counts}{rest}")

    def _print(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


def _line(trial: TrialRecord, record: SearchRecord) -> str:
    epochs = plural(len(trial.epochs), "epoch")
    values = f"{record.metric} {format_objective(trial.value)}{_costs(trial, record)}"
    return (
        f"trial {trial.number:>3}  {ending_phrase(trial):<11} {values}  "
        f"{epochs:>9}  {format_duration(trial.seconds):>7}{_best(record)}  "
        + (f"on {trial.node}  " if trial.node and record.config.get("address") else "")
        + " ".join(parameter_phrases(trial.params, "="))
    )


def _best(record: SearchRecord) -> str:
    best = record.best
    front = f", front of {len(record.front)}" if record.objectives else ""
    return "" if best is None else f"  best {format_objective(best.value)} (trial {best.number}{front})"


def _costs(trial: TrialRecord, record: SearchRecord) -> str:
    """Return the values of all objectives but the first."""
    return "".join(
        f", {objective_phrase(name, trial.objectives.get(name))}" for name in record.objectives[1:]
    )
