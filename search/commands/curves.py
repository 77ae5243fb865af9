"""``unfreeze curves``: write a search's learning curves for TensorBoard."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from search.config.argument_parser import Parser, add_storage_options, add_verbose_option
from search.records.formatting import plural
from trainables.errors import SearchError


def parser() -> Parser:
    """Return the parser: the search, and where to write."""
    made = Parser(
        "curves", "Write a search's learning curves and parameters for TensorBoard, one run per trial."
    )
    made.add_argument("name", metavar="NAME", help="Name of the search.")
    made.add_argument("--output", metavar="DIR", help="Folder to write (default: STORAGE/NAME/tensorboard).")
    add_storage_options(made, tracking=False, ledger=True)
    add_verbose_option(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Write the event files and print their folder."""
    from search.ledger.reader import read_record
    from search.tracking.tensorboard_events import TENSORBOARD_FOLDER, write_events

    record = read_record(options.name, options.storage, options.ledger)
    folder = (
        Path(options.output) if options.output else Path(options.storage) / options.name / TENSORBOARD_FOLDER
    )
    try:
        written = write_events(record, folder)
    except OSError as error:
        raise SearchError(
            f"--output: expected a folder that can be written, received {str(folder)!r}: {error}"
        ) from error
    if not written:
        print("unfreeze: no trial has finished an epoch yet", file=sys.stderr)
        return 1
    look = f"tensorboard --logdir {shlex.quote(str(folder.absolute()))}"
    print(f"unfreeze: {plural(len(written), 'run')}; show them with: {look}", file=sys.stderr)
    print(folder.absolute())
    return 0
