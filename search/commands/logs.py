"""``unfreeze logs``: what happened to one trial.

What ``unfreeze logs`` prints.

What happened to one trial, put together from the ledger and from what engines and the driver wrote down.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.text import Text

from search.config.argument_parser import Parser, add_storage_options, add_verbose_option
from search.records.event_log import DRIVER_LOG, ENGINE_EXIT, LogLine, read_lines
from search.records.formatting import ending_phrase, format_objective, format_value, parameter_phrases, plural
from search.records.record import SearchRecord, TrialRecord
from search.records.units import format_duration
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import UsageError

MAX_OUTPUT_LINES = 200
"""Lines of other output that are kept for each stay of a trial in an engine, the last ones."""


@dataclass(frozen=True)
class LogEvent:
    """Something at a moment; ``source`` is ``driver`` or the engine, as ``HOST-PROCESS``."""

    moment: datetime
    source: str
    words: str


@dataclass(frozen=True)
class TrialLog:
    """``happenings`` in order of time; ``output`` is what each engine printed while the trial was in it."""

    trial: TrialRecord
    events: tuple[LogEvent, ...]
    output: tuple[tuple[str, tuple[str, ...]], ...]


def read_trial_log(trial: TrialRecord, folder: Path, baseline: bool = False) -> TrialLog:
    """The story of ``trial``, whose search's logs are in ``folder``; what was not kept is not in it.

    The driver calls the trials of a search and those of its ``baseline`` by the same numbers, but not at the same time.
    """
    key, events, output = trial_key(trial), [], []
    for file in sorted(folder.glob("*.log")):
        lines = list(read_lines(file))
        if file.name == DRIVER_LOG:
            events += [h for h in _of_driver(lines, trial.number) if not baseline or _during(trial, h.moment)]
            continue
        mine = [
            LogEvent(line.moment, file.stem, line.message)
            for line in lines
            if line.trial == key and line.moment
        ]
        events += mine
        if mine and (printed := _printed(lines, key)):
            output.append((file.stem, tuple(printed[-MAX_OUTPUT_LINES:])))
    return TrialLog(trial, tuple(sorted(events, key=lambda h: h.moment)), tuple(output))


def trial_key(trial: TrialRecord) -> str:
    """What engines call a trial."""
    return f"{trial.method}-{trial.number}"


def _of_driver(lines: Iterable[LogLine], number: int) -> Iterator[LogEvent]:
    """The driver's lines that name this trial, alone or among others."""
    named = re.compile(rf"\btrials? (?:[\d, and]*\b)?{number}\b")
    for line in lines:
        if line.moment and named.search(line.message):
            yield LogEvent(line.moment, "driver", line.message)


def _during(trial: TrialRecord, moment: datetime) -> bool:
    return (trial.started is None or moment >= trial.started) and (
        trial.ended is None or moment <= trial.ended
    )


def _printed(lines: Iterable[LogLine], key: str) -> list[str]:
    """What was printed between a trial's lines, from its first one to the last or, if its engine died, to the end.

    Other trials of the engine may have caused it.
    """
    found: list[str] = []
    since: list[str] = []
    inside = False
    for line in lines:
        if line.trial == key:
            inside = line.message != ENGINE_EXIT
            found += since
            since = []
        elif inside and line.moment is None:
            since.append(line.message)
    return found + (since if inside else [])


_LABEL = 10


def logs_page(record: SearchRecord, story: TrialLog) -> Text:
    """A trial's life, epochs, error and the output of its engines."""
    trial = story.trial
    lines = [Text(f"{record.name}, trial {trial.number}", style="bold"), *_life(trial, record)]
    if story.events:
        lines += [Text(), Text("what happened", style="bold")]
        lines += [
            Text.assemble((f"{_clock(h.moment)}  ", "dim"), (f"{h.source:<20}  ", "cyan"), h.words)
            for h in story.events
        ]
    if trial.epochs:
        lines += [Text(), Text("epoch  val_accuracy  val_loss  train_loss  seconds", style="bold")]
        lines += [Text(_epoch(e)) for e in trial.epochs]
    if trial.error:
        lines += [Text(), Text("error", style="bold red"), Text(trial.error.rstrip())]
    for engine, printed in story.output:
        lines += [
            Text(),
            Text(f"printed by the engine {engine} meanwhile", style="bold"),
            *map(Text, printed),
        ]
    return Text("\n").join(lines)


def _life(trial: TrialRecord, record: SearchRecord) -> Iterator[Text]:
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
    """In this machine's time."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _line(label: str, words: str) -> Text:
    return Text.assemble((f"{label:<{_LABEL}}", "bold"), words)


def parser() -> Parser:
    """NAME, TRIAL and where the search's files are."""
    made = Parser(
        "logs",
        "What happened to a trial: its life, its epochs, its error, and what its engines printed meanwhile.\n"
        "It is read from the storage: also while the search runs, and when the cluster is gone.",
    )
    made.add_argument("name", metavar="NAME", help="name of the search")
    made.add_argument("trial", metavar="TRIAL", help="number of the trial")
    made.add_argument("--baseline", action="store_true", help="a trial of the search's baseline")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    add_storage_options(made, tracking=False, ledger=True)
    add_verbose_option(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Print the trial's story."""
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
    story = read_trial_log(record.trials[number], logs, options.baseline)
    if options.json:
        print(json.dumps(_as_json(record.name, story), ensure_ascii=False, allow_nan=False))
        return 0
    from rich.console import Console

    Console().print(logs_page(record, story), highlight=False, soft_wrap=True)
    return 0


def _as_json(name: str, story: TrialLog) -> dict[str, object]:
    from search.records.results import finite_json

    trial = story.trial
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
            {"moment": h.moment.isoformat(), "source": h.source, "words": h.words} for h in story.events
        ],
        "output": dict(story.output),
    }
