"""How challenger and champion compare, as ``unfreeze promote`` shows it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from search.records.formatting import memory_phrase, percent, plural, points
from search.records.record import Interval
from search.records.stats.forgetting import Retention
from search.records.stats.paired_tests import McNemar
from search.registry.gate import Comparison, Judgement
from search.registry.promotion import Contest
from search.sizes import format_size
from search.tracking.tags import memory_of
from trainables.serving.footprint import BATCH, Footprint


def contest_table(contest: Contest) -> Group:
    """Accuracies with their intervals, costs, notes, and the decision."""
    return Group(*_parts(contest))


def _parts(contest: Contest) -> Iterator[RenderableType]:
    judgement = contest.judgement
    if judgement.accuracy is not None:
        yield _accuracies(contest, judgement, judgement.accuracy)
    served = [other.served for other in judgement.comparisons if other.served]
    for test in served:
        yield Text(_served(test, judgement.images), "dim")
    if judgement.retention is not None:
        yield _old_task(contest, judgement.retention)
    elif (old := memory_of(contest.challenger.tags)) is not None:
        yield Text(f"of the old task's test images it got right {memory_phrase(old)}")
    if any(judgement.footprints):
        yield _costs(contest)
    for note in judgement.notes:
        yield Text(f"note: {note}", "yellow")
    style = "bold green" if judgement.passes else "bold red"
    yield Text.assemble((judgement.decision, style), f": {judgement.reason}")


def _accuracies(contest: Contest, judgement: Judgement, accuracy: float) -> Table:
    table = _table(f"{plural(judgement.images, 'test image')}", "accuracy", "gain", "95 %", "bootstrap")
    mine = f"version {contest.challenger.version}, challenger"
    table.add_row(mine, f"{percent(accuracy)}{_trained(judgement.seeds)}", "", "", "")
    for other in judgement.comparisons:
        table.add_row(*_row(other, champion=contest.champion is not None))
    return table


def _row(other: Comparison, champion: bool) -> tuple[str, ...]:
    return (
        other.other + (", champion" if champion else ""),
        percent(other.accuracy) + _trained(other.seeds),
        points(other.gain.estimate),
        _between(other.gain),
        _between(other.bootstrap),
    )


def _old_task(contest: Contest, old: Retention) -> Table:
    """What the challenger's trainings have left of the old task, beside the backbone that they began with."""
    table = _table(
        f"{plural(old.images, 'test image')} of the old task", "accuracy", "gain", "95 %", "bootstrap"
    )
    table.add_row("before", percent(old.before), "", "", "")
    table.add_row(
        f"version {contest.challenger.version}, challenger",
        percent(old.after) + _trained(old.seeds),
        points(old.gain.estimate),
        _between(old.gain),
        _between(old.bootstrap),
    )
    return table


def _costs(contest: Contest) -> Table:
    table = _table("", "size", "load", "1 image", f"in {BATCH}", "measured on")
    versions = (contest.challenger, contest.champion)
    for version, role, footprint in zip(
        versions, ("challenger", "champion"), contest.judgement.footprints, strict=True
    ):
        if version is not None:
            table.add_row(f"version {version.version}, {role}", *_cost(footprint))
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


def _served(test: McNemar, images: int) -> str:
    return (
        f"of the two models that are served, only the challenger is right on {test.first_only:,} of "
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
    return f"{points(interval.low)} to {points(interval.high)}"
