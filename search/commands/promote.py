"""``unfreeze promote``: challenger to champion."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from search.arguments import Parser, add_store, add_verbose
from search.stores import known_store


def parser() -> Parser:
    """Which model, in which store."""
    made = Parser("promote", "Make a model's challenger its champion: models:/MODEL@champion is what serves.")
    made.add_argument("model", metavar="MODEL", help="registered name, such as unfreeze-digits")
    made.add_argument("--force", action="store_true", help="promote whatever the comparison says")
    add_store(made)
    add_verbose(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Move the alias and say what moved."""
    from search.registry import promote

    uri = known_store(options.tracking_uri, options.storage)
    done = promote(options.model, uri, force=options.force)
    before = f" after version {done.before.version}" if done.before else ""
    print(f"{options.model}: version {done.champion.version} is the champion{before}")
    print(f"load it as models:/{options.model}@champion")
    return 0
