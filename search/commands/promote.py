"""``unfreeze promote``: make a model's challenger, or a version chosen by number, its champion, if it passes the gate.

The rule of the gate is in :mod:`search.registry.gate`. This module prints the comparison and, after a search with
several objectives, asks which point of the Pareto front is meant.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from search.config.argument_parser import Parser, add_storage_options, add_verbose_option
from search.config.validation_errors import quote_value
from search.records.formatting import format_objective, format_percent, format_points, old_task_phrase, plural
from search.records.pareto import knee, objective_losses
from search.records.units import format_size
from search.tracking.stores import store_to_read
from search.tracking.tags import old_task_of
from trainables.errors import UsageError
from trainables.serving.footprint import BATCH

if TYPE_CHECKING:
    from search.records.record import Interval
    from search.records.stats.forgetting import ForgettingComparison
    from search.records.stats.paired_tests import McNemar
    from search.registry.front_versions import FrontVersion
    from search.registry.gate import Comparison, GateDecision
    from search.registry.promotion import AmbiguousChallenger, PromotionComparison
    from trainables.serving.footprint import Footprint


def parser() -> Parser:
    """Return the parser: the model, its store, and the thresholds of the gate."""
    made = Parser(
        "promote",
        "Make a model's challenger its champion if it is better on the same test images, or as good and cheaper.\n"
        "models:/MODEL@champion is the model in production. The exit code is 1 if the challenger does not pass.",
    )
    made.add_argument("model", metavar="MODEL", help="Registered name, such as unfreeze-digits.")
    made.add_argument(
        "--margin",
        metavar="X",
        default="1%",
        help="Accuracy that a cheaper challenger may lack, such as 1%% or 0.01 (default: 1%%).",
    )
    made.add_argument(
        "--max-forgetting",
        metavar="X",
        help="Loss of accuracy that is accepted on the old task (--remember of the search), such as 1%% or 0.01. With "
        "0, it passes only if a loss can be ruled out.",
    )
    made.add_argument(
        "--trial",
        metavar="N",
        help="Trial of the point of the Pareto front to promote, after a search with several objectives (default: the "
        "command asks).",
    )
    made.add_argument(
        "--version",
        metavar="N",
        help="Number of the version to promote (default: the version with the alias challenger).",
    )
    made.add_argument("--dry-run", action="store_true", help="Show the comparison and change nothing.")
    made.add_argument(
        "--force",
        action="store_true",
        help="Promote even if the challenger does not pass. The history records that.",
    )
    add_storage_options(made)
    add_verbose_option(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Compare challenger and champion, move the alias, and print the change."""
    margin, trial = _fraction("margin", options.margin), _number("trial", options.trial)
    options.version = _number("version", options.version)
    if trial is not None and options.version is not None:
        raise UsageError("--version: expected either --trial or --version, received both")
    if options.max_forgetting is not None:
        options.max_forgetting = _fraction("max-forgetting", options.max_forgetting)
    from search.registry import AmbiguousChallenger

    uri = store_to_read(options.tracking_uri, options.storage)
    try:
        return _compare_and_promote(options, uri, margin, trial)
    except AmbiguousChallenger as question:
        return _compare_and_promote(options, uri, margin, _ask_for_point(question))


def _compare_and_promote(options: argparse.Namespace, uri: str, margin: float, trial: int | None) -> int:
    from search.registry import PromotionComparison, PromotionRefused, judge, promote

    if options.dry_run:
        comparison = judge(
            options.model,
            uri,
            margin=margin,
            trial=trial,
            version=options.version,
            max_forgetting=options.max_forgetting,
        )
        _show(comparison)
        print(f"{options.model}: nothing was changed (--dry-run)")
        return 0 if comparison.judgement.passes or options.force else 1
    try:
        done = promote(
            options.model,
            uri,
            margin=margin,
            force=options.force,
            trial=trial,
            version=options.version,
            max_forgetting=options.max_forgetting,
        )
    except PromotionRefused as refused:  # the comparison shows why; cli.main() prints the message
        _show(refused.comparison)
        raise
    if done.judgement is not None:
        proposed = done.champion if options.version is None else None
        _show(PromotionComparison(done.champion, done.before, done.judgement, proposed))
    before = f" after version {done.before.version}" if done.before else ""
    forced = ", by force" if done.forced else ""
    print(f"{options.model}: version {done.champion.version} is the champion{before}{forced}")
    print(f"load it as models:/{options.model}@champion")
    return 0


def _ask_for_point(which: AmbiguousChallenger) -> int:
    """Return the trial that the user chooses from a table of the points.

    Raises:
        UsageError: no terminal is there to ask at, or ``--trial`` named none of the points.
    """
    console = Console(highlight=False)
    console.print(front_table(which.points, which.champion))
    known = [point.trial for point in which.points]
    if which.received is not None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(f"--{which}")
    while True:
        try:
            # input() would write the question to stderr, which is redirected while libraries are kept quiet.
            answer = console.input(f"which point, by its trial? [{known[0]}] ", markup=False).strip()
        except EOFError:
            raise UsageError(f"--{which}") from None
        if not answer or (answer.isascii() and answer.isdecimal() and int(answer) in known):
            return int(answer or known[0])
        print(f"expected one of {', '.join(map(str, known))}, received {quote_value(answer)}")


def _number(option: str, text: str | None) -> int | None:
    """Return the value of ``--trial`` or ``--version``."""
    if text is not None and not re.fullmatch(r"[0-9]{1,9}", text.strip(), re.ASCII):
        raise UsageError(f"--{option}: expected the number of a {option}, received {quote_value(text)}")
    return None if text is None else int(text)


def _fraction(name: str, text: str) -> float:
    """Return the value of an option that takes a fraction as ``1%`` or ``0.01``."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})\s*(%?)", text.strip(), re.ASCII)
    value = float(found[1]) / (100 if found[2] else 1) if found else -1.0
    if not 0 <= value < 1:
        raise UsageError(
            f"--{name}: expected an accuracy such as 1% or 0.01, below 100%, received {quote_value(text)}"
        )
    return value


def _show(comparison: PromotionComparison) -> None:
    Console().print(comparison_table(comparison), highlight=False)


def comparison_table(comparison: PromotionComparison) -> Group:
    """Return what the command prints: accuracies with intervals, costs, notes, and the decision."""
    return Group(*_parts(comparison))


def _label(comparison: PromotionComparison) -> str:
    """Return what tables call the version to promote: ``challenger`` only if it has that alias."""
    version, proposed = comparison.challenger.version, comparison.proposed
    role = "challenger" if proposed is not None and proposed.version == version else "candidate"
    return f"version {version}, {role}"


def _parts(comparison: PromotionComparison) -> Iterator[RenderableType]:
    judgement = comparison.judgement
    if judgement.accuracy is not None:
        yield _accuracies(comparison, judgement, judgement.accuracy)
    served = [other.served for other in judgement.comparisons if other.served]
    for test in served:
        yield Text(_served(test, comparison.challenger.version, judgement.images), "dim")
    if judgement.old_task is not None:
        yield _old_task(comparison, judgement.old_task)
    elif (old := old_task_of(comparison.challenger.tags)) is not None:
        yield Text(f"accuracy on the old task: {old_task_phrase(old)}")
    if any(judgement.footprints):
        yield _costs(comparison)
    for note in judgement.notes:
        yield Text(f"note: {note}", "yellow")
    style = "bold green" if judgement.passes else "bold red"
    yield Text.assemble((judgement.decision, style), f": {judgement.reason}")


def _accuracies(comparison: PromotionComparison, judgement: GateDecision, accuracy: float) -> Table:
    table = _table(f"{plural(judgement.images, 'test image')}", "accuracy", "gain", "95 %", "bootstrap")
    table.add_row(_label(comparison), f"{format_percent(accuracy)}{_trained(judgement.seeds)}", "", "", "")
    for other in judgement.comparisons:
        table.add_row(*_row(other, champion=comparison.champion is not None))
    return table


def _row(other: Comparison, champion: bool) -> tuple[str, ...]:
    return (
        other.other + (", champion" if champion else ""),
        format_percent(other.accuracy) + _trained(other.seeds),
        format_points(other.gain.estimate),
        _between(other.gain),
        _between(other.bootstrap),
    )


def _old_task(comparison: PromotionComparison, old: ForgettingComparison) -> Table:
    """Return the accuracy on the old task before and after the challenger's training."""
    table = _table(
        f"{plural(old.images, 'test image')} of the old task", "accuracy", "gain", "95 %", "bootstrap"
    )
    table.add_row("before", format_percent(old.before), "", "", "")
    table.add_row(
        _label(comparison),
        format_percent(old.after) + _trained(old.seeds),
        format_points(old.gain.estimate),
        _between(old.gain),
        _between(old.bootstrap),
    )
    return table


def _costs(comparison: PromotionComparison) -> Table:
    table = _table("", "size", "load", "1 image", f"in {BATCH}", "measured on")
    new, old = comparison.judgement.footprints
    table.add_row(_label(comparison), *_cost(new))
    if comparison.champion is not None:
        table.add_row(f"version {comparison.champion.version}, champion", *_cost(old))
    return table


def _cost(footprint: Footprint | None) -> tuple[str, ...]:
    if footprint is None:
        return ("–",) * 5
    return (
        format_size(footprint.file_bytes),
        f"{footprint.load_seconds:.2g} s",
        f"{footprint.latency.median:.3g} ms",
        f"{footprint.batch_latency.median:.3g} ms",
        footprint.processor,
    )


def _served(test: McNemar, version: str, images: int) -> str:
    return (
        f"of the two models that are served, only version {version} is right on {test.first_only:,} of "
        f"{plural(images, 'image')}, only the champion on {test.second_only:,} (McNemar's exact p = {test.p_value:.2g})"
    )


def _table(*heads: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    for place, head in enumerate(heads):
        words = head in ("", "measured on") or place == 0
        table.add_column(head, justify="left" if words else "right", no_wrap=not words)
    return table


def _trained(seeds: int) -> str:
    return f" (mean of {seeds})" if seeds > 1 else ""


def _between(interval: Interval) -> str:
    return f"{format_points(interval.low)} to {format_points(interval.high)}"


def front_table(points: Sequence[FrontVersion], champion: str | None) -> Table:
    """Return a table of the points of a Pareto front: trial, version, objectives, and in what a point is the best.

    Test accuracies are left out on purpose: a choice by them would make the test accuracy an optimistic estimate.
    """
    names = list(points[0].values)
    placed = [objective_losses(point.values, names) for point in points]
    whole = [point for point in placed if point is not None]
    middle = placed.index(whole[knee(whole)]) if len(whole) > 2 else None
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    for head in ("trial", "version", *names):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("")
    for place, point in enumerate(points):
        words = _special(placed, place, names)
        words += ["knee"] if place == middle else []
        words += ["champion now"] if point.version.version == champion else []
        values = (_shown(name, point.values[name]) for name in names)
        table.add_row(str(point.trial), point.version.version, *values, Text(", ".join(words), "dim"))
    return table


def _special(placed: Sequence[tuple[float, ...] | None], place: int, names: Sequence[str]) -> list[str]:
    own = placed[place]
    if own is None:
        return []
    columns = list(zip(*(point for point in placed if point is not None), strict=True))
    ranges = [(min(column), max(column)) for column in columns]
    # No point is the best where all are equal, hence low < high.
    best = [own[k] == low < high for k, (low, high) in enumerate(ranges)]
    return [f"best {name}" for name, first in zip(names, best, strict=True) if first]


def _shown(name: str, value: float) -> str:
    if name == "parameters":
        return f"{value:,.0f}"
    return f"{value:.4g}" if name in ("latency_ms", "megabytes") else format_objective(value)
