"""``unfreeze search``: run a search, or resume one.

Its options are the fields of :class:`~search.config.search_config.SearchConfig`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from search.config.argument_parser import Parser, add_verbose_option
from search.config.config_file import load_config
from search.config.environment import ExitCode
from search.config.option_types import GROUPS
from search.config.options import options_of
from search.config.search_config import SearchConfig

if TYPE_CHECKING:
    from search.study.search_result import SearchResult

_DESCRIPTION = """\
Find the best fine-tuning of a backbone for your data, and register the winner.
Without arguments: real handwritten digits, the built-in backbone, a few minutes.
The same command resumes an interrupted search; a larger --trials extends it."""
_EPILOG = """\
CONFIG.yaml holds the same options with underscores, as in

  data: photos/
  backbone: MobileNetV2
  trials: 40

Options on the command line override the file. Paths, also in the file, are relative
to the working directory. The environment variables UNFREEZE_STORAGE,
UNFREEZE_TRACKING_URI and UNFREEZE_LEDGER are used for options that are not given.
docs/options.md describes all options, their values and all environment variables."""


def parser() -> Parser:
    """Return the parser: an option for each field of SearchConfig, and what is printed."""
    made = Parser("search", _DESCRIPTION, "unfreeze search [CONFIG.yaml] [options]", _EPILOG)
    made.add_argument("config", nargs="?", metavar="CONFIG.yaml", help="Read options from a file.")
    for title in GROUPS:
        group = made.add_argument_group(title)
        for option in options_of(title):
            option.add_to(group)
    output = made.add_argument_group("output")
    output.add_argument("--quiet", action="store_true", help="Print errors only.")
    output.add_argument("--json", action="store_true", help="Print the result as one JSON object.")
    add_verbose_option(output)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Run the search. Its progress is shown on stderr, its result is printed on stdout."""
    config = load_config(options.config, given_options(options))
    from search.views.view import make_view

    # The view starts before the imports of Ray and Optuna, which take seconds.
    view = make_view(quiet=options.quiet, verbose=options.verbose)
    try:
        view.stage("starting", 0, 0)
        from search.study.study import run_search

        result = run_search(config, view, verbose=options.verbose)
    except KeyboardInterrupt:
        view.close()
        again = shlex.join(["unfreeze", "search", *_resume_arguments(config, arguments)])
        print(f"\ninterrupted; all results so far are kept. To resume:\n\n  {again}\n", file=sys.stderr)
        return ExitCode.INTERRUPTED
    finally:
        view.close()
    _show(result, options)
    return ExitCode.DONE


def _resume_arguments(config: SearchConfig, arguments: Sequence[str]) -> list[str]:
    """Return the arguments that resume the search."""
    # --fresh again would archive what is to be resumed. A config file may set it, too; --no-fresh overrides the file.
    same = [a for a in arguments if a != "--fresh"]
    return [*same, "--no-fresh"] if config.fresh and len(same) == len(arguments) else same


def given_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that were given on the command line, by field name."""
    return {name: value for name, value in vars(options).items() if name in SearchConfig.model_fields}


def _show(result: SearchResult, options: argparse.Namespace) -> None:
    from rich.console import Console

    from search.records.results import record_json
    from search.views.summary import print_summary

    if not options.quiet:
        print(file=sys.stderr)
        console = Console(stderr=options.json)
        print_summary(result.record, result.report_path, console, result.model_state)
    if options.json:
        content = record_json(result.record, result.report_path, result.model_uri)
        print(json.dumps(content, ensure_ascii=False, allow_nan=False))
