"""What happened to one trial, put together from the ledger and from what engines and the driver wrote down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from search.records.event_log import DRIVER, LEAVES, Line, read_lines
from search.records.record import TrialRecord

MOST_OUTPUT = 200
"""Lines of other output that are kept for each stay of a trial in an engine, the last ones."""


@dataclass(frozen=True)
class Happening:
    """Something at a moment; ``source`` is ``driver`` or the engine, as ``HOST-PROCESS``."""

    moment: datetime
    source: str
    words: str


@dataclass(frozen=True)
class Story:
    """``happenings`` in order of time; ``output`` is what each engine printed while the trial was in it."""

    trial: TrialRecord
    happenings: tuple[Happening, ...]
    output: tuple[tuple[str, tuple[str, ...]], ...]


def tell(trial: TrialRecord, folder: Path, baseline: bool = False) -> Story:
    """The story of ``trial``, whose search's logs are in ``folder``; what was not kept is not in it.

    The driver calls the trials of a search and those of its ``baseline`` by the same numbers, but not at the same time.
    """
    key, happenings, output = trial_key(trial), [], []
    for file in sorted(folder.glob("*.log")):
        lines = list(read_lines(file))
        if file.name == DRIVER:
            happenings += [
                h for h in _of_driver(lines, trial.number) if not baseline or _during(trial, h.moment)
            ]
            continue
        mine = [
            Happening(line.moment, file.stem, line.words)
            for line in lines
            if line.trial == key and line.moment
        ]
        happenings += mine
        if mine and (printed := _printed(lines, key)):
            output.append((file.stem, tuple(printed[-MOST_OUTPUT:])))
    return Story(trial, tuple(sorted(happenings, key=lambda h: h.moment)), tuple(output))


def trial_key(trial: TrialRecord) -> str:
    """What engines call a trial."""
    return f"{trial.method}-{trial.number}"


def _of_driver(lines: Iterable[Line], number: int) -> Iterator[Happening]:
    """The driver's lines that name this trial, alone or among others."""
    named = re.compile(rf"\btrials? (?:[\d, and]*\b)?{number}\b")
    for line in lines:
        if line.moment and named.search(line.words):
            yield Happening(line.moment, "driver", line.words)


def _during(trial: TrialRecord, moment: datetime) -> bool:
    return (trial.started is None or moment >= trial.started) and (
        trial.ended is None or moment <= trial.ended
    )


def _printed(lines: Iterable[Line], key: str) -> list[str]:
    """What was printed between a trial's lines, from its first one to the last or, if its engine died, to the end.

    Other trials of the engine may have caused it.
    """
    found: list[str] = []
    since: list[str] = []
    inside = False
    for line in lines:
        if line.trial == key:
            inside = line.words != LEAVES
            found += since
            since = []
        elif inside and line.moment is None:
            since.append(line.words)
    return found + (since if inside else [])
