"""``unfreeze logs``: what happened to one trial."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.config.argument_parser import Parser, add_store, add_verbose
from trainables.errors import UsageError

if TYPE_CHECKING:
    from search.trial_story import Story


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
    add_store(made, tracking=False, ledger=True)
    add_verbose(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Print the trial's story."""
    number = int(options.trial) if options.trial.isdecimal() else -1
    if number < 0:
        raise UsageError(f"TRIAL: expected the number of a trial, received {options.trial!r}")
    from search.ledger.reader import read_record
    from search.ledger.workspace import Workspace
    from search.trial_story import tell

    record = read_record(options.name, options.storage, options.ledger, baseline=options.baseline)
    if number >= len(record.trials):
        raise UsageError(
            f"TRIAL: expected 0 to {len(record.trials) - 1}, the trials of {record.name!r}, received {number}"
            if record.trials
            else f"TRIAL: {record.name!r} has no trials yet"
        )
    logs = Workspace(Path(options.storage).absolute(), options.name).logs
    story = tell(record.trials[number], logs, options.baseline)
    if options.json:
        print(json.dumps(_as_json(record.name, story), ensure_ascii=False, allow_nan=False))
        return 0
    from rich.console import Console

    from search.logs_page import logs_page

    Console().print(logs_page(record, story), highlight=False, soft_wrap=True)
    return 0


def _as_json(name: str, story: Story) -> dict[str, object]:
    from search.record_json import finite_json

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
            {"moment": h.moment.isoformat(), "source": h.source, "words": h.words} for h in story.happenings
        ],
        "output": dict(story.output),
    }
