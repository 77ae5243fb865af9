"""Tabulate the candidates among which the winner was chosen: the value in the search, over new seeds, and on test.

The differences between these values show how optimistic the search was: the best of many trials is partly lucky.
"""

from __future__ import annotations

from dataclasses import dataclass

from search.records.formatting import format_points, plural
from search.records.metrics import is_fraction
from search.records.record import Finalist, SearchRecord, Selection
from search.report.analysis.wording import format_interval, format_metric, format_percent, label

HEADINGS = (
    "trial",
    "method",
    "in the search",
    "mean over new seeds",
    "95 % interval",
    "optimism",
    "epochs",
    "test",
)
"""Headings of the columns of :attr:`Candidates.rows`."""


@dataclass(frozen=True)
class Candidates:
    """The table, the best mean first.

    Attributes:
        lead: sentences that say how the winner was chosen.
        rows: a cell for each of :data:`HEADINGS`.
        chosen: the index of the winner's row.
    """

    lead: str
    rows: tuple[tuple[str, ...], ...]
    chosen: int


def candidates(record: SearchRecord) -> Candidates | None:
    """Return the candidates of a search; None if the best trial was confirmed without comparing it."""
    outcome = record.outcome
    selection = outcome.selection if outcome else None
    if outcome is None or selection is None:
        return None
    tests = {outcome.trial: format_percent(outcome.headline_accuracy.estimate)}
    if outcome.probe is not None and not outcome.probe_won:
        known = outcome.probe.test_accuracies
        tests |= {
            f.trial: format_percent(sum(known) / len(known))
            for f in selection.finalists
            if f.method == "probe"
        }
    return Candidates(
        _lead(selection),
        tuple(_row(selection, finalist, tests.get(finalist.trial, "–")) for finalist in selection.finalists),
        next(i for i, finalist in enumerate(selection.finalists) if finalist.trial == selection.chosen),
    )


def _lead(selection: Selection) -> str:
    winner = selection.winner
    seeds, images = plural(len(winner.values), "new seed"), plural(selection.images, "validation image")
    one = len(selection.finalists) == 1
    which = "The best trial was" if one else "The best trials were"
    words = f"{which} trained again with {seeds} and compared on {images}."
    if selection.probe_preferred:
        words += (
            " The frozen probe wins, because no other candidate is better by more than one standard error."
        )
    optimism = selection.optimism(winner)
    shown = f"{format_points(optimism)} points" if is_fraction(selection.metric) else f"{optimism:+.4f}"
    searched, mean = (
        format_metric(selection.metric, value) for value in (winner.searched, winner.mean.estimate)
    )
    words += (
        f" In the search the winner had a {label(selection.metric)} of {searched}; its mean over new seeds is {mean}, "
        f"so the search was optimistic by {shown}."
    )
    if selection.failed:
        numbers = ", ".join(map(str, selection.failed))
        words += f" Left out, because the loss diverged with a new seed: trial {numbers}."
    return words


def _row(selection: Selection, finalist: Finalist, test: str) -> tuple[str, ...]:
    metric, optimism, mean = selection.metric, selection.optimism(finalist), finalist.mean
    fraction = is_fraction(metric)
    return (
        str(finalist.trial),
        finalist.method,
        format_metric(metric, finalist.searched),
        format_metric(metric, mean.estimate),
        format_interval(mean) if fraction else f"{mean.low:.4g} to {mean.high:.4g}",
        format_points(optimism) if fraction else f"{optimism:+.4f}",
        ", ".join(map(str, finalist.epochs)),
        test,
    )
