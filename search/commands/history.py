"""``unfreeze history``: which version was champion when, and why."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from search.config.argument_parser import Parser, add_store, add_verbose
from search.tracking.stores import known_store


def parser() -> Parser:
    """Which model, in which store."""
    made = Parser("history", "Every change of a model's champion: when, by whom, from which search, and why.")
    made.add_argument("model", metavar="MODEL", help="registered name, such as unfreeze-digits")
    made.add_argument("--json", action="store_true", help="print one JSON array, with all numbers")
    add_store(made)
    add_verbose(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Read the events from the registry and print them, the oldest first."""
    from search.registry import history

    events = history(options.model, known_store(options.tracking_uri, options.storage))
    if options.json:
        print(json.dumps([event.to_json() for event in events], ensure_ascii=False, allow_nan=False))
        return 0
    if not events:
        print(f"{options.model}: no version was promoted yet")
        return 0
    from rich.console import Console

    from search.history_table import history_table

    Console().print(history_table(events), highlight=False)
    return 0
