"""``unfreeze score``: print how well backbones suit the data, before any training."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from search.config.argument_parser import Parser, add_verbose_option
from search.config.config_file import load_config
from search.config.options import SEARCH_OPTIONS, options_of
from search.config.search_config import SearchConfig
from search.config.validation_errors import quote_value
from search.records.formatting import abbreviate_count, format_percent, plural
from search.records.record import Interval
from search.records.scores import ScoringResult, explanations
from search.records.units import format_duration
from trainables.errors import UsageError

DEFAULT_IMAGES = 1000
MIN_IMAGES, MAX_IMAGES = 10, 10_000
"""Bounds of ``--images``. The matrices of similarities between images grow with the square of their number."""

FIELDS = {
    "data": (
        *(o.name for o in options_of("data") if o.name not in ("source", "unlabelled_target")),
        "seed",
    ),
    "backbone": ("backbone", "weights", "input_size", "preprocessing"),
    "storage": ("storage", "tracking_uri", "cache", "cache_budget"),
    "resources": ("precision",),
}
"""Options of a search that have the same meaning here. Data and activations are prepared where the search looks."""

REPEATED = ("backbone", "weights")
"""Options that may be given more than once, unlike in a search."""

DESCRIPTIONS = {
    "backbone": "Backbone to score. Give the option once per backbone.",
    "skip_bad_images": "Leave out images that cannot be decoded. By default they are an error that lists their names.",
    "seed": "Random seed of data splits and of the sample of images.",
}
"""Help texts of options whose description for a search does not apply here."""

_DESCRIPTION = """\
Score backbones on your data before any training, to choose the ones to search with.
The training and validation images, never the test images, pass through the frozen
backbones. The results are kept for the search that follows."""

_EPILOG = """\
  unfreeze score --data photos/ --backbone MobileNetV2 --backbone EfficientNetB0

Give --weights once for all backbones, or once for each. Scores are a prior: they
cannot predict what a backbone reaches once its blocks are unfrozen."""


def parser() -> Parser:
    """Return the parser: the options of a search that apply, and those of the scores."""
    made = Parser("score", _DESCRIPTION, "unfreeze score [--data DATA] --backbone A --backbone B …", _EPILOG)
    for title, names in FIELDS.items():
        group = made.add_argument_group(title)
        for name in names:
            SEARCH_OPTIONS[name].add_to(
                group, repeatable=name in REPEATED, description=DESCRIPTIONS.get(name)
            )
        if title == "data":
            group.add_argument(
                "--source",
                metavar="DATA",
                help="Data that the backbones were trained on, or similar data, to compare yours with.",
            )
            group.add_argument(
                "--images",
                metavar="N",
                default=str(DEFAULT_IMAGES),
                help=f"Maximum number of images that are scored (default: {DEFAULT_IMAGES}).",
            )
    output = made.add_argument_group("output")
    output.add_argument("--report", metavar="FILE.html|.png|.svg", help="Write a page or a figure, too.")
    output.add_argument("--quiet", action="store_true", help="Show no progress.")
    output.add_argument("--json", action="store_true", help="Print one JSON object.")
    add_verbose_option(output)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Print the table. The exit code is 1 if a backbone cannot be scored; the others are scored in any case."""
    configs, max_images = backbone_configs(options), image_limit(options.images)
    report = None if options.report is None else Path(options.report)
    if report is not None:
        from search.report.scores_page import check_report

        check_report(report)
    # The data is the same for all backbones, so one configuration suffices to check it.
    check_score_inputs(next(iter(configs.values())), options.source)
    from search.views.view import make_view

    view = make_view(quiet=options.quiet or options.json, verbose=options.verbose)
    try:
        view.stage("starting", 0, 0)
        from search.study.scoring import score_backbones

        scoring = score_backbones(configs, options.source, max_images, view)
    finally:
        view.close()
    if report is not None:
        from search.report.scores_page import write_scoring

        write_scoring(scoring, report)
    if options.json:
        from search.records.scores import scoring_json

        found = scoring_json(scoring, None if report is None else str(report.absolute()))
        print(json.dumps(found, ensure_ascii=False, allow_nan=False))
    else:
        from rich.console import Console

        print_scoring(scoring, Console())
        if report is not None:
            print(report.absolute())
    for name, reason in scoring.failed.items():
        print(f"unfreeze: backbone {name}: {reason}", file=sys.stderr)
    return 1 if scoring.failed else 0


def backbone_configs(options: argparse.Namespace) -> dict[str, SearchConfig]:
    """Return the configuration of a search for each backbone, by a name that identifies it.

    Raises:
        UsageError: a value is wrong, the number of weights does not match, or a backbone is given twice.
    """
    given: dict[str, Any] = {k: v for k, v in vars(options).items() if k in SearchConfig.model_fields}
    names = given.pop("backbone", [SearchConfig.model_fields["backbone"].default])
    weights = given.pop("weights", [SearchConfig.model_fields["weights"].default])
    if len(weights) not in (1, len(names)):
        raise UsageError(
            f"--weights: expected one for all backbones or one for each of the {len(names)}, received {len(weights)}"
        )
    pairs = list(zip(names, weights if len(weights) == len(names) else weights * len(names), strict=True))
    found: dict[str, SearchConfig] = {}
    for name, own in pairs:
        label = name if names.count(name) == 1 else f"{name} ({own})"
        if label in found:
            raise UsageError(f"--backbone: expected each one once, received {quote_value(name)} twice")
        found[label] = load_config(None, {**given, "backbone": name, "weights": own})
    return found


def check_score_inputs(config: SearchConfig, source: str | None) -> None:
    """Raise UsageError if data is missing or unfit, before TensorFlow is loaded and anything is written."""
    from search.study.resolved_inputs import data_options
    from trainables.modalities.image.datasets import check_data

    directory = Path(config.storage).absolute() / ".data"
    for data in (config.data, source):
        if data is not None:
            check_data(data, directory=directory, options=data_options(config))


def image_limit(text: str) -> int:
    """Return the value of ``--images``."""
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) and MIN_IMAGES <= int(text) <= MAX_IMAGES:
        return int(text)
    raise UsageError(
        f"--images: expected a whole number from {MIN_IMAGES} to {MAX_IMAGES:,}, received {quote_value(text)}"
    )


PLOT = 18
"""Width of the dot plot in characters."""


def print_scoring(scoring: ScoringResult, console: Console) -> None:
    """Print the page."""
    for part in scoring_page(scoring, _plain(console)):
        # The terminal wraps long sentences, so that they can be copied as one line.
        console.print(part, highlight=False, soft_wrap=isinstance(part, Text))


def scoring_page(scoring: ScoringResult, ascii_only: bool = False) -> list[RenderableType]:
    """Return the page: headline, tables, failures, similar backbones, and how to read it."""
    head = Text.assemble((scoring.task, "bold"))
    head.append(f": {plural(scoring.images, 'image')} of {plural(scoring.classes, 'class')}, k-NN of ")
    head.append(f"{scoring.neighbours} neighbours, ").append(format_duration(scoring.elapsed), "bold")
    parts: list[RenderableType] = [head, Text(), score_table(scoring, ascii_only)]
    if scoring.source is not None:
        parts += [Text(f"\ncompared with the source {scoring.source}:"), source_table(scoring)]
    for name, reason in scoring.failed.items():
        parts.append(Text(f"{name}: not scored: {reason}", "red"))
    similar = sorted(scoring.feature_cka.items(), key=lambda pair: -pair[1])[:3]
    if similar:
        pairs = ", ".join(f"{a} and {b} {cka:.2f}" for (a, b), cka in similar)
        parts.append(Text(f"\nsimilar features (CKA; 1 means equal up to rotation): {pairs}"))
    notes = [sentence.replace("≈", _mark(ascii_only)) for sentence in explanations(scoring)]
    return [*parts, Text(), *(Text(sentence, "dim") for sentence in notes)]


def score_table(scoring: ScoringResult, ascii_only: bool) -> Table:
    """Return the table of the backbones, the best first."""
    low, high = _span(scoring)
    table = _table()
    table.add_column("k-NN", justify="right", no_wrap=True)
    table.add_column(
        f"{format_percent(low)}{format_percent(high):>{PLOT - len(format_percent(low))}}", no_wrap=True
    )
    for name in ("LogME", "H-score", "CKA", "weights"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, scores in enumerate(scoring.backbones):
        mark = f"{_mark(ascii_only)} " if scores.tied else ""
        table.add_row(
            Text(scores.name, "bold green" if number == 0 else ""),
            Text(f"{mark}{format_percent(scores.knn.estimate)}", "bold" if number == 0 else ""),
            Text(dot_plot(scores.knn, low, high, ascii_only), "green" if number == 0 else "cyan"),
            *map(_number, (scores.logme, scores.h_score, scores.label_cka)),
            abbreviate_count(scores.parameters),
        )
    return table


def source_table(scoring: ScoringResult) -> Table:
    """Return the table of the backbones' scores against the source."""
    table = _table()
    for name in ("LEEP", "NCE", "MMD²", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for scores in scoring.backbones:
        if scores.likeness is not None:
            found = scores.likeness
            cells = (found.leep, found.nce, found.mmd_squared, found.mmd_p_value)
            table.add_row(Text(scores.name), *map(_number, cells))
    return table


def dot_plot(interval: Interval, low: float, high: float, ascii_only: bool, width: int = PLOT) -> str:
    """Return a plot such as ``  ├──●──┤``: the estimate and its interval on an axis from ``low`` to ``high``."""
    line, dot, left, right = ("-", "o", "|", "|") if ascii_only else ("─", "●", "├", "┤")
    scale = (width - 1) / (high - low) if high > low else 0.0
    first, middle, last = (
        min(width - 1, max(0, round((value - low) * scale)))
        for value in (interval.low, interval.estimate, interval.high)
    )
    marks = [line if first < i < last else " " for i in range(width)]
    marks[first], marks[last] = left, right
    marks[middle] = dot
    return "".join(marks)


def _table() -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    table.add_column("backbone", overflow="fold", min_width=14)
    return table


def _mark(ascii_only: bool) -> str:
    """Return the mark of backbones that cannot be distinguished from the first."""
    return "~" if ascii_only else "≈"


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _span(scoring: ScoringResult) -> tuple[float, float]:
    """Return the range that holds all intervals, in whole percents."""
    low = min(scores.knn.low for scores in scoring.backbones)
    high = max(scores.knn.high for scores in scoring.backbones)
    return int(100 * low) / 100, min(1.0, (int(100 * high) + 1) / 100)


def _plain(console: Console) -> bool:
    return not (console.encoding or "").lower().startswith("utf")
