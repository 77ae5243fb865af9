"""``unfreeze history``: print every change of a model's champion, and why it changed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.config.argument_parser import Parser, add_storage_options, add_verbose_option
from search.tracking.stores import store_to_read

if TYPE_CHECKING:
    from search.registry.promotion_history import PromotionEvent


def parser() -> Parser:
    """Return the parser: the model and its store."""
    made = Parser(
        "history", "List every change of a model's champion: when, by whom, from which search, and why."
    )
    made.add_argument("model", metavar="MODEL", help="Registered name, such as unfreeze-digits.")
    made.add_argument("--json", action="store_true", help="Print one JSON array, with all numbers.")
    add_storage_options(made)
    add_verbose_option(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Print the events of the registry, the oldest first."""
    from search.registry import history

    events = history(options.model, store_to_read(options.tracking_uri, options.storage))
    if options.json:
        print(json.dumps([event.to_json() for event in events], ensure_ascii=False, allow_nan=False))
        return 0
    if not events:
        print(f"{options.model}: no version was promoted yet")
        return 0
    Console().print(history_table(events), highlight=False)
    return 0


def history_table(events: Sequence[PromotionEvent]) -> Table:
    """Return a table with a row for each event."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    table.add_column("#", justify="right")
    for head in ("when (UTC)", "by", "champion", "from"):
        table.add_column(head, no_wrap=head != "from")
    table.add_column("why")
    for event in events:
        table.add_row(*_row(event))
    return table


def _row(event: PromotionEvent) -> tuple[str | Text, ...]:
    return (
        str(event.number),
        f"{event.when:%Y-%m-%d %H:%M}",
        event.by,
        f"{event.before or '–'} → {event.version}",
        "–" if event.search is None else f"{event.search} #{'?' if event.trial is None else event.trial}",
        _why(event),
    )


def _why(event: PromotionEvent) -> Text:
    if not event.done:
        return Text("interrupted: the champion did not change", "yellow")
    if event.kind == "rolled back":
        return Text("rolled back")
    if event.forced:
        return Text(f"forced, against the gate: {event.decision}: {event.reason}", "yellow")
    return Text(f"{event.decision}: {event.reason}")
