"""``unfreeze report``: the HTML report again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from search.arguments import Parser, add_store, add_verbose
from trainables.errors import SearchError


def parser() -> Parser:
    """NAME, and where to write."""
    made = Parser("report", "Write a search's HTML report again, from its ledger.")
    made.add_argument("name", metavar="NAME", help="name of the search")
    made.add_argument(
        "--output", metavar="FILE.html", help="where to write; STORAGE/NAME/report.html if not given"
    )
    add_store(made, tracking=False, ledger=True)
    add_verbose(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Write the report and print its path."""
    from search.reading import read_record
    from search.report import write_report

    record = read_record(options.name, options.storage, options.ledger)
    path = Path(options.output) if options.output else Path(options.storage) / options.name / "report.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_report(record, path)
    except OSError as error:
        raise SearchError(
            f"output: expected a file that can be written, received {str(path)!r}: {error}"
        ) from error
    print(path.absolute())
    return 0
