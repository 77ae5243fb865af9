"""Collect warnings and notes that a reader should know before relying on the first screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from search.records.end_reasons import END_REASONS, STOP_REASONS
from search.records.formatting import forgetting_phrase, format_points, plural
from search.records.record import SearchRecord
from search.report.analysis.ranking import still_improving, winner
from search.report.analysis.wording import format_parameter, join_words, label
from trainables.data.class_names import source_notes


@dataclass(frozen=True)
class Notice:
    """A warning, on which the reader should act, or a note."""

    kind: Literal["warning", "note"]
    text: str


def notices(record: SearchRecord) -> list[Notice]:
    """Return all notices, warnings first."""
    warnings = [*_edges(record), *_failures(record), *_skipped(record), *_unfinished(record)]
    notes = [
        *_improving(record),
        *_remembered(record),
        *_unlabelled(record),
        *_source(record),
        *_diverged(record),
    ]
    found = [*warnings, *notes, *_smaller_batches(record)]
    # sorted() is stable: within each kind, the order of the lists above remains.
    return sorted(found, key=lambda notice: notice.kind != "warning")


def _edges(record: SearchRecord) -> Iterator[Notice]:
    best = winner(record)
    for name in record.edges:
        value = best.params.get(name) if best else None
        at = f" ({format_parameter(name, value)})" if value is not None else ""
        yield Notice(
            "warning",
            f"The best {label(name)}{at} is at the edge of its range: a better value may lie outside. "
            "Widen the range with --space FILE.yaml.",
        )


def _remembered(record: SearchRecord) -> Iterator[Notice]:
    old = record.outcome.old_task if record.outcome else None
    if old is not None:
        after = join_words([f"{100 * value:.1f} %" for value in old.after])
        mean = old.lost
        more = (
            f" Its training runs lose {format_points(mean.estimate)} points on average (95 % interval "
            f"{format_points(mean.low)} to "
            f"{format_points(mean.high)}, over test images and seeds)."
            if mean is not None
            else ""
        )
        yield Notice(
            "note",
            f"Accuracy on the old task ({record.config.get('remember')}) was {100 * old.before:.1f} % before, and "
            f"{after} after the winner's training runs. The registered model's backbone "
            f"{forgetting_phrase(old.forgotten)}." + more,
        )


def _failures(record: SearchRecord) -> Iterator[Notice]:
    failed = [t for t in record.trials if t.state == "failed"]
    if failed:
        reasons = Counter(_failure(trial.reason) for trial in failed)
        words = join_words([f"{amount} {reason}" for reason, amount in reasons.most_common()])
        share = f"{len(failed)} of {plural(len(record.trials), 'trial')}"
        yield Notice("warning", f"{share} failed: {words}. The table of trials has the errors.")


def _failure(reason: str | None) -> str:
    known = END_REASONS.get(reason or "")
    return known.plural if known else reason or "failed for an unknown reason"


def _smaller_batches(record: SearchRecord) -> Iterator[Notice]:
    smaller = [t for t in record.trials if t.batch_size]
    if smaller:
        sizes = join_words([f"{t.batch_size} in trial {t.number}" for t in smaller[:8]])
        yield Notice(
            "note",
            f"{plural(len(smaller), 'trial')} ran out of memory with batches of {record.config.get('batch_size')} and "
            f"continued with smaller ones ({sizes}): their results are not exactly comparable with the others.",
        )


def _unlabelled(record: SearchRecord) -> Iterator[Notice]:
    if record.config.get("unlabelled_target"):
        yield Notice(
            "warning",
            "No label of the target was used. The validation accuracy is measured on source images, weighted by their "
            "similarity to the target. The validation loss adds terms for uncertain and one-sided predictions on "
            "target images. Both may prefer a trial that is worse on the target; only the test accuracy is measured "
            "there.",
        )


def _source(record: SearchRecord) -> Iterator[Notice]:
    if record.source is not None:
        for note in source_notes(record.source.classes, record.task.classes):
            yield Notice("note", f"Of the source, {note}.")


def _skipped(record: SearchRecord) -> Iterator[Notice]:
    if record.task.skipped:
        images = plural(record.task.skipped, "image")
        yield Notice("warning", f"{images} could not be read and {_were(record.task.skipped)} left out.")


def _were(amount: int) -> str:
    return "was" if amount == 1 else "were"


def _unfinished(record: SearchRecord) -> Iterator[Notice]:
    finished = sum(t.finished for t in record.trials)
    share = f"{finished} of {plural(record.requested, 'trial')}"
    if record.stopped is not None:
        known = STOP_REASONS.get(record.stopped)
        why = known.clause if known else record.stopped
        yield Notice("note", f"The search ended after {share}, because {why}.")
    elif finished < record.requested:
        running = record.count("running")
        going = f", {running} {'is' if running == 1 else 'are'} running" if running else ""
        yield Notice("warning", f"{share} have finished{going}. Run the same command again to continue.")


def _improving(record: SearchRecord) -> Iterator[Notice]:
    finished = sum(t.finished for t in record.trials)
    if record.outcome is not None and finished >= record.requested and still_improving(record):
        yield Notice(
            "note",
            "The best value was found by one of the last trials, so more trials may find a better one. Run the same "
            f"command with --trials {2 * record.requested} to continue.",
        )


def _diverged(record: SearchRecord) -> Iterator[Notice]:
    diverged = sum(t.state == "pruned" and t.reason == "diverged" for t in record.trials)
    if diverged:
        yield Notice(
            "note",
            f"{plural(diverged, 'trial')} diverged (the loss became NaN or infinite) and stopped there.",
        )
