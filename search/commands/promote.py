"""``unfreeze promote``: challenger to champion."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from search.arguments import Parser, add_store, add_verbose
from search.stores import default_tracking_uri


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

    uri = options.tracking_uri or default_tracking_uri(Path(options.storage))
    promoted = promote(options.model, tracking_uri=uri, force=options.force)
    print(f"{options.model}: version {promoted} is the champion; load it as models:/{options.model}@champion")
    return 0
