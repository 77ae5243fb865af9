"""``unfreeze backbones``: list the backbones that have a name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from search.config.argument_parser import Parser, add_verbose_option
from search.records.formatting import abbreviate_count


def parser() -> Parser:
    """Return the parser: the format of the output."""
    made = Parser(
        "backbones", "List the backbones that have a name. Any functional .keras file is a backbone, too."
    )
    made.add_argument("--json", action="store_true", help="Print a JSON list.")
    add_verbose_option(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Print the catalogue that ships with the package."""
    from trainables.modalities.image.catalogue import catalogue

    entries = catalogue()
    if options.json:
        print(json.dumps([{**asdict(entry), "install": entry.install_hint} for entry in entries]))
        return 0
    rows = [("name", "input", "parameters", "blocks")]
    rows += [(e.name, str(e.input_size), abbreviate_count(e.parameters), str(e.blocks)) for e in entries]
    width = max(len(row[0]) for row in rows)
    for name, size, parameters, blocks in rows:
        print(f"{name:<{width}}  {size:>5}  {parameters:>10}  {blocks:>6}")
    for entry in entries:
        if entry.install_hint:
            print(f"\nThe weights of {entry.name} are not installed: {entry.install_hint}")
    return 0
