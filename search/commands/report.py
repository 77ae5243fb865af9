"""``unfreeze report``: the report again, as a page, as Markdown, or its plots as pictures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from search.config.argument_parser import Parser, add_storage_options, add_verbose_option
from search.config.choices import did_you_mean
from search.config.validation_errors import format_value
from trainables.errors import SearchError, UsageError

FORMATS = ("html", "md", "png")


def parser() -> Parser:
    """NAME, in what form, and where to write."""
    made = Parser("report", "Write a search's report again, from its ledger.")
    made.add_argument("name", metavar="NAME", help="name of the search")
    made.add_argument(
        "--format",
        metavar="FORMAT",
        default="html",
        help="html: the page; md: a short Markdown for a pull request; png: a folder of its plots [html]",
    )
    made.add_argument(
        "--output",
        metavar="PATH",
        help="where to write (- for the terminal, of md alone); STORAGE/NAME/report.html, report.md, or plots/ if "
        "not given",
    )
    add_storage_options(made, tracking=False, ledger=True)
    add_verbose_option(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Write the report and print its path."""
    form = _checked(options.format)
    if options.output == "-" and form != "md":
        raise UsageError(
            f"--output: expected a path with --format {form}, received '-'\nsee unfreeze report --help"
        )
    from search.ledger.reader import read_record
    from search.report.formats import REPORT_FORMATS

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


def _checked(form: str) -> str:
    plain: str = form.strip().lower()
    if plain not in FORMATS:
        expected = ", ".join(FORMATS)
        raise UsageError(
            f"--format: expected one of {expected}, received {format_value(form)}{did_you_mean(plain, FORMATS)}\n"
            "see unfreeze report --help"
        )
    return plain
