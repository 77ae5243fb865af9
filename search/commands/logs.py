"""``unfreeze logs``: print what happened to one trial.

The page combines the ledger's record of the trial with the log files that the driver and the engines write.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from search.config.argument_parser import Parser, add_storage_options, add_verbose_option
from search.records.event_log import DRIVER_LOG, ENGINE_EXIT, LogLine, read_lines
from search.records.formatting import ending_phrase, format_objective, format_value, parameter_phrases, plural
from search.records.record import SearchRecord, TrialRecord
from search.records.units import format_duration
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import UsageError

MAX_OUTPUT_LINES = 200
"""Of the lines that an engine printed while the trial ran in it, this many are shown, the last ones."""

_LABEL_WIDTH = 10


def parser() -> Parser:
    """Return the parser: the search, the trial, and where the search's files are."""
    made = Parser(
        "logs",
        "Print what happened to a trial: its state, its epochs, its error, and what its engines printed meanwhile.\n"
        "The command reads the storage only. It works while the search runs and when the cluster is gone.",
    )
    made.add_argument("name", metavar="NAME", help="Name of the search.")
    made.add_argument("trial", metavar="TRIAL", help="Number of the trial.")
    made.add_argument("--baseline", action="store_true", help="Show a trial of the search's baseline.")
    made.add_argument("--json", action="store_true", help="Print one JSON object.")
    add_storage_options(made, tracking=False, ledger=True)
    add_verbose_option(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Print the page of the trial."""
    number = int(options.trial) if options.trial.isdecimal() else -1
    if number < 0:
        raise UsageError(f"TRIAL: expected the number of a trial, received {options.trial!r}")
    from search.ledger.reader import read_record
    from search.ledger.workspace import Workspace

    record = read_record(options.name, options.storage, options.ledger, baseline=options.baseline)
    if number >= len(record.trials):
        raise UsageError(
            f"TRIAL: expected 0 to {len(record.trials) - 1}, the trials of {record.name!r}, received {number}"
            if record.trials
            else f"TRIAL: {record.name!r} has no trials yet"
        )
    logs = Workspace(Path(options.storage).absolute(), options.name).logs
    log = read_trial_log(record.trials[number], logs, options.baseline)
    if options.json:
        print(json.dumps(_as_json(record.name, log), ensure_ascii=False, allow_nan=False))
        return 0
    Console().print(logs_page(record, log), highlight=False, soft_wrap=True)
    return 0


def _as_json(name: str, log: TrialLog) -> dict[str, object]:
    from search.records.results import finite_json

    trial = log.trial
    return {
        "search": name,
        "trial": trial.number,
        "state": trial.state,
        "reason": trial.reason,
        "error": trial.error,
        "node": trial.node,
        "params": dict(trial.params),
        "started": trial.started.isoformat() if trial.started else None,
        "ended": trial.ended.isoformat() if trial.ended else None,
        "epochs": [finite_json(vars(epoch)) for epoch in trial.epochs],
        "happenings": [
            {"moment": event.moment.isoformat(), "source": event.source, "words": event.message}
            for event in log.events
        ],
        "output": dict(log.output),
    }


@dataclass(frozen=True)
class LogEvent:
    """Something that happened to a trial.

    Attributes:
        moment: when it happened.
        source: who logged it: ``driver``, or an engine as ``HOST-PROCESS``.
        message: what happened.
    """

    moment: datetime
    source: str
    message: str


@dataclass(frozen=True)
class TrialLog:
    """Everything that the logs hold of one trial.

    Attributes:
        trial: the ledger's record of it.
        events: what happened to it, in order of time.
        output: for each engine in which it ran, the engine's name and the lines that it printed meanwhile.
    """

    trial: TrialRecord
    events: tuple[LogEvent, ...]
    output: tuple[tuple[str, tuple[str, ...]], ...]


def read_trial_log(trial: TrialRecord, folder: Path, baseline: bool = False) -> TrialLog:
    """Return what the log files in ``folder`` hold of ``trial``; files that are gone are left out.

    Args:
        trial: a trial of the search.
        folder: the logs of the search.
        baseline: whether it is a trial of a baseline. Search and baseline number their trials alike, but they run at
            different times, by which the driver's lines are assigned.
    """
    key, events, output = trial_key(trial), [], []
    for file in sorted(folder.glob("*.log")):
        lines = list(read_lines(file))
        if file.name == DRIVER_LOG:
            events += [
                event
                for event in _driver_events(lines, trial.number)
                if not baseline or _during(trial, event.moment)
            ]
            continue
        mine = [
            LogEvent(line.moment, file.stem, line.message)
            for line in lines
            if line.trial == key and line.moment
        ]
        events += mine
        if mine and (printed := _printed(lines, key)):
            output.append((file.stem, tuple(printed[-MAX_OUTPUT_LINES:])))
    return TrialLog(trial, tuple(sorted(events, key=lambda event: event.moment)), tuple(output))


def trial_key(trial: TrialRecord) -> str:
    """Return the name by which engines log a trial."""
    return f"{trial.method}-{trial.number}"


def _driver_events(lines: Iterable[LogLine], number: int) -> Iterator[LogEvent]:
    """Yield the driver's lines that name this trial, alone or among others."""
    # Matches "trial 7", "trials 3, 7 and 9", but not "trial 17".
    named = re.compile(rf"\btrials? (?:[\d, and]*\b)?{number}\b")
    for line in lines:
        if line.moment and named.search(line.message):
            yield LogEvent(line.moment, "driver", line.message)


def _during(trial: TrialRecord, moment: datetime) -> bool:
    return (trial.started is None or moment >= trial.started) and (
        trial.ended is None or moment <= trial.ended
    )


def _printed(lines: Iterable[LogLine], key: str) -> list[str]:
    """Return what the engine printed while the trial ran in it.

    That is everything between the trial's first event and its last one or, if the engine crashed, the end of the log.
    Other trials in the same engine may have caused some of it.
    """
    found: list[str] = []
    since_event: list[str] = []
    inside = False
    for line in lines:
        if line.trial == key:
            inside = line.message != ENGINE_EXIT
            found += since_event
            since_event = []
        elif inside and line.moment is None:
            since_event.append(line.message)
    return found + (since_event if inside else [])


def logs_page(record: SearchRecord, log: TrialLog) -> Text:
    """Return the page: state, events, epochs, error, and output of the engines."""
    trial = log.trial
    lines = [Text(f"{record.name}, trial {trial.number}", style="bold"), *_summary(trial, record)]
    if log.events:
        lines += [Text(), Text("what happened", style="bold")]
        lines += [
            Text.assemble(
                (f"{_clock(event.moment)}  ", "dim"), (f"{event.source:<20}  ", "cyan"), event.message
            )
            for event in log.events
        ]
    if trial.epochs:
        lines += [Text(), Text("epoch  val_accuracy  val_loss  train_loss  seconds", style="bold")]
        lines += [Text(_epoch(e)) for e in trial.epochs]
    if trial.error:
        lines += [Text(), Text("error", style="bold red"), Text(trial.error.rstrip())]
    for engine, printed in log.output:
        lines += [
            Text(),
            Text(f"printed by the engine {engine} meanwhile", style="bold"),
            *map(Text, printed),
        ]
    return Text("\n").join(lines)


def _summary(trial: TrialRecord, record: SearchRecord) -> Iterator[Text]:
    yield _line(
        "state",
        ending_phrase(trial) + (f", {record.metric} {format_objective(trial.value)}" if trial.epochs else ""),
    )
    yield _line("with", " ".join(parameter_phrases(trial.params, "=")) or "no parameters yet")
    yield _line("method", f"{trial.method}, seed {trial.seed}")
    if trial.node:
        yield _line("node", trial.node)
    if trial.started is not None:
        until = f", ended {_clock(trial.ended)}" if trial.ended else ""
        yield _line("started", f"{_clock(trial.started)}{until}")
    epochs = f"{plural(len(trial.epochs), 'epoch')} in {format_duration(trial.seconds)}"
    yield _line("trained", epochs)


def _epoch(epoch: EpochMetrics) -> str:
    return (
        f"{epoch.epoch:>5}  {format_value(epoch.val_accuracy):>12}  {format_value(epoch.val_loss):>8}  "
        f"{format_value(epoch.train_loss):>10}  {epoch.epoch_seconds:>7.2f}"
    )


def _clock(moment: datetime) -> str:
    """Return ``moment`` in the time zone of this machine."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _line(label: str, words: str) -> Text:
    return Text.assemble((f"{label:<{_LABEL_WIDTH}}", "bold"), words)
