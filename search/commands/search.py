"""``unfreeze search``: run a search, or go on with one."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search.config.argument_parser import Parser, add_verbose_option
from search.config.choices import (
    BATCH_NORM,
    JIT,
    METHOD_NAMES,
    PRECISION,
    PREPROCESSING,
    PRIOR,
    SAMPLERS,
    SCHEDULERS,
)
from search.config.search_config import SearchConfig, load_config
from search.records.metrics import EPOCH_METRIC_DIRECTIONS, OBJECTIVES

if TYPE_CHECKING:
    from search.study.search_result import SearchResult

GROUPS: Mapping[str, tuple[str, ...]] = {
    "data": (
        "data",
        "source",
        "unlabelled_target",
        "validation_fraction",
        "test_fraction",
        "image_column",
        "label_column",
        "split_column",
        "skip_bad_images",
    ),
    "backbone": (
        "backbone",
        "weights",
        "input_size",
        "preprocessing",
        "batch_norm",
        "teacher",
        "teacher_weights",
    ),
    "trials": (
        "trials",
        "epochs",
        "batch_size",
        "method",
        "space",
        "enqueue",
        "warm_start",
        "remember",
        "prior",
        "sampler",
        "scheduler",
        "metric",
        "objective",
        "time_budget",
        "patience",
        "seed",
    ),
    "winner": ("confirm_seeds", "confirm_points", "baseline_trials", "model_name", "register_model"),
    "places": ("name", "fresh", "storage", "keep_best", "checkpoint_budget", "ledger", "tracking_uri"),
    "machines": (
        "max_concurrent",
        "cpus_per_trial",
        "gpus_per_trial",
        "max_retries",
        "trial_timeout",
        "address",
        "precision",
        "jit",
    ),
    "reuse": ("reuse", "views", "cache", "cache_budget"),
}
"""Every field of SearchConfig, in the order of the help page."""

REPEATED = ("backbone", "objective", "warm_start")
"""Options that may be given more than once."""

_CHOICES = {
    "method": METHOD_NAMES,
    "sampler": SAMPLERS,
    "scheduler": SCHEDULERS,
    "metric": EPOCH_METRIC_DIRECTIONS,
    "objective": OBJECTIVES,
    "preprocessing": PREPROCESSING,
    "batch_norm": BATCH_NORM,
    "precision": PRECISION,
    "prior": PRIOR,
    "jit": JIT,
}
_METAVARS = {
    "data": "digits|DIR|FILE.parquet",
    "source": "digits|DIR|FILE.parquet",
    "validation_fraction": "X",
    "test_fraction": "X",
    "image_column": "COLUMN",
    "label_column": "COLUMN",
    "split_column": "COLUMN",
    "backbone": "NAME|FILE.keras|models:/NAME@ALIAS",
    "weights": "default|imagenet|none|FILE",
    "teacher": "NAME|FILE.keras|models:/NAME@ALIAS",
    "teacher_weights": "default|imagenet|none|FILE",
    "input_size": "PIXELS",
    "space": "core|full|FILE.yaml",
    "enqueue": "FILE.jsonl",
    "warm_start": "NAME",
    "remember": "DATA",
    "time_budget": "TIME",
    "trial_timeout": "TIME",
    "storage": "DIR",
    "ledger": "URL",
    "tracking_uri": "URI",
    "name": "NAME",
    "model_name": "NAME",
    "cpus_per_trial": "X",
    "gpus_per_trial": "X",
    "address": "RAY",
    "reuse": "all|none|PART,PART",
    "cache": "DIR|off",
    "cache_budget": "SIZE",
    "checkpoint_budget": "SIZE",
}
_DESCRIPTION = """\
Find the best fine-tuning of a backbone for your data, and register the winner.
Without arguments: real handwritten digits, the built-in backbone, a few minutes.
The same command again goes on where it stopped; a larger --trials extends it."""
_EPILOG = """\
CONFIG.yaml holds the same options with underscores, as in

  data: photos/
  backbone: MobileNetV2
  trials: 40

Flags go before what the file says. Paths, in the file too, are relative to the
working directory. UNFREEZE_STORAGE, UNFREEZE_TRACKING_URI and UNFREEZE_LEDGER in
the environment stand for the options that are not given. A ledger's server, and at
the end MLflow, may be away for UNFREEZE_SERVICE_PATIENCE seconds (60)."""


def parser() -> Parser:
    """One option a field of SearchConfig."""
    made = Parser("search", _DESCRIPTION, "unfreeze search [CONFIG.yaml] [options]", _EPILOG)
    made.add_argument("config", nargs="?", metavar="CONFIG.yaml", help="options from a file")
    for title, names in GROUPS.items():
        group = made.add_argument_group(title)
        for name in names:
            add_field(group, name, repeat=name in REPEATED)
    output = made.add_argument_group("output")
    output.add_argument("--quiet", action="store_true", help="show nothing but errors")
    output.add_argument("--json", action="store_true", help="print the result as one JSON object")
    add_verbose_option(output)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Run the search with a view on stderr; the result goes to stdout."""
    config = load_config(options.config, given_options(options))
    from search.views.view import make_view

    view = make_view(quiet=options.quiet, verbose=options.verbose)
    try:
        view.stage("starting", 0, 0)
        from search.study.study import run_search

        result = run_search(config, view, verbose=options.verbose)
    except KeyboardInterrupt:
        view.close()
        again = shlex.join(["unfreeze", "search", *_resume_arguments(config, arguments)])
        print(f"\ninterrupted; what was done is kept. To go on:\n\n  {again}\n", file=sys.stderr)
        return 130
    finally:
        view.close()
    _show(result, options)
    return 0


def _resume_arguments(config: SearchConfig, arguments: Sequence[str]) -> list[str]:
    """The same command, but not anew once more."""
    same = [a for a in arguments if a != "--fresh"]
    return [*same, "--no-fresh"] if config.fresh and len(same) == len(arguments) else same


def given_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options that were given on the command line, by field name."""
    return {name: value for name, value in vars(options).items() if name in SearchConfig.model_fields}


def _show(result: SearchResult, options: argparse.Namespace) -> None:
    from rich.console import Console

    from search.records.results import record_json
    from search.views.summary import print_summary

    if not options.quiet:
        print(file=sys.stderr)
        print_summary(result.record, result.report_path, Console(stderr=options.json))
    if options.json:
        content = record_json(result.record, result.report_path, result.model_uri)
        print(json.dumps(content, ensure_ascii=False, allow_nan=False))


def add_field(group: argparse._ArgumentGroup, name: str, repeat: bool = False) -> None:
    """The option of a field of SearchConfig; with ``repeat`` a list of all that are given."""
    field = SearchConfig.model_fields[name]
    flag, default = "--" + (field.alias or name).replace("_", "-"), field.default
    words = str(field.description).replace("%", "%%")
    if isinstance(default, bool):
        group.add_argument(
            flag, dest=name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=words
        )
        return
    known = f" [{default}]" if default is not None else ""
    metavar = "|".join(_CHOICES[name]) if name in _CHOICES else _METAVARS.get(name, "N")
    group.add_argument(
        flag,
        dest=name,
        metavar=metavar,
        default=argparse.SUPPRESS,
        help=words + known,
        action="append" if repeat else "store",
    )
