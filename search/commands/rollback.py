"""``unfreeze rollback``: make the previous champion of a model the champion again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from search.config.argument_parser import Parser, add_storage_options, add_verbose_option
from search.tracking.stores import store_to_read


def parser() -> Parser:
    """Return the parser: the model and its store."""
    made = Parser("rollback", "Make the previous champion of a model the champion again.")
    made.add_argument("model", metavar="MODEL", help="Registered name, such as unfreeze-digits.")
    add_storage_options(made)
    add_verbose_option(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Move the alias back and print the change."""
    from search.registry import rollback

    uri = store_to_read(options.tracking_uri, options.storage)
    done = rollback(options.model, uri)
    before = f" instead of version {done.before.version}" if done.before else ""
    print(f"{options.model}: version {done.champion.version} is the champion again{before}")
    return 0
