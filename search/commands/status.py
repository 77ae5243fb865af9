"""``unfreeze status``: where a search stands."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from search.config.argument_parser import Parser, add_store, add_verbose


def parser() -> Parser:
    """NAME and where the search's files are."""
    made = Parser("status", "Trials by state, the best so far, and what it cost.")
    made.add_argument("name", metavar="NAME", help="name of the search")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    add_store(made, tracking=False, ledger=True)
    add_verbose(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Read the ledger and print what it says; works while the search runs."""
    from search.ledger.reader import read_record

    record = read_record(options.name, options.storage, options.ledger)
    if options.json:
        from search.record_json import record_json

        print(json.dumps(record_json(record), ensure_ascii=False, allow_nan=False))
        return 0
    from rich.console import Console

    from search.status_page import status_page

    Console().print(status_page(record, tracebacks=options.verbose), highlight=False, soft_wrap=True)
    return 0
