"""``unfreeze report``: write a search's report again, as a page, as Markdown, or as pictures of its plots."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from search.config.argument_parser import Parser, add_storage_options, add_verbose_option
from search.config.choices import did_you_mean
from search.config.validation_errors import quote_value
from search.report.formats import REPORT_FORMATS
from trainables.errors import SearchError, UsageError


def parser() -> Parser:
    """Return the parser: the search, the format, and where to write."""
    made = Parser("report", "Write a search's report again, from its ledger.")
    made.add_argument("name", metavar="NAME", help="Name of the search.")
    made.add_argument(
        "--format",
        metavar="|".join(REPORT_FORMATS),
        default="html",
        help="html: the page; md: a short Markdown text for a pull request; png: a folder of plots (default: html).",
    )
    made.add_argument(
        "--output",
        metavar="PATH",
        help="File or folder to write; - prints a report in Markdown (default: report.html, report.md or plots/ in "
        "STORAGE/NAME).",
    )
    add_storage_options(made, tracking=False, ledger=True)
    add_verbose_option(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Write the report and print its path."""
    form = _report_format(options.format)
    if options.output == "-" and form != "md":
        raise UsageError(
            f"--output: expected a path with --format {form}, received '-'\nsee unfreeze report --help"
        )
    from search.ledger.reader import read_record

    record = read_record(options.name, options.storage, options.ledger, whole=True)
    if options.output == "-":
        from search.report.markdown import markdown

        print(markdown(record), end="")
        return 0
    name, write = REPORT_FORMATS[form]
    path = Path(options.output) if options.output else Path(options.storage) / options.name / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(record, path)
    except OSError as error:
        what = "folder" if form == "png" else "file"
        raise SearchError(
            f"output: expected a {what} that can be written, received {str(path)!r}: {error}"
        ) from error
    print(path.absolute())
    return 0


def _report_format(form: str) -> str:
    """Return the value of ``--format``."""
    plain = form.strip().lower()
    if plain not in REPORT_FORMATS:
        hint = did_you_mean(plain, REPORT_FORMATS)
        raise UsageError(
            f"--format: expected one of {', '.join(REPORT_FORMATS)}, received {quote_value(form)}{hint}\n"
            "see unfreeze report --help"
        )
    return plain
