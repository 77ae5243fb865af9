"""Reconstruct when each epoch of a search ended, with long pauses left out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from search.records.record import SearchRecord, TrialRecord
from search.report.analysis.ranking import loss_key

MIN_PAUSE_SECONDS = 60.0
"""Seconds without any running trial from which a gap counts as a pause."""


@dataclass(frozen=True)
class EpochEnd:
    """The end of an epoch, ``seconds`` after the search started without pauses, with the objective's value."""

    seconds: float
    trial: int
    epoch: int
    value: float


@dataclass(frozen=True)
class Timeline:
    """The ends of all epochs, ordered by time; ``paused`` is the number of seconds left out."""

    moments: tuple[EpochEnd, ...]
    length: float
    paused: float


def timeline(record: SearchRecord) -> Timeline:
    """Return the epochs of all trials whose start is known.

    The ledger stores when a trial started and ended, and the duration of each epoch. The time between start and end
    is divided among the epochs in proportion to their durations. Time zero is the start of the first trial.
    """
    placed = [(trial, span) for trial in record.trials if (span := _span(trial)) is not None]
    if not placed:
        return Timeline((), 0.0, 0.0)
    origin = min(begun for _, (begun, _) in placed)
    # A trial that a killed driver left running spans the time until it was resumed. So a trial counts as busy only
    # for the seconds before its end for which it accounts.
    pauses = list(_pauses([(max(begun, end - _busy(t)), end) for t, (begun, end) in placed], origin))
    found = [
        EpochEnd(_without(seconds, pauses) - origin, trial.number, epoch, value)
        for trial, span in placed
        for seconds, epoch, value in _epochs(record, trial, *span)
    ]
    last = max(end for _, (_, end) in placed)
    return Timeline(
        moments=tuple(sorted(found, key=lambda m: (m.seconds, m.trial, m.epoch))),
        length=_without(last, pauses) - origin,
        paused=sum(end - begun for begun, end in pauses),
    )


def improvements(record: SearchRecord, known: Timeline) -> list[EpochEnd]:
    """Return the moments at which the best value so far improved."""
    steps: list[EpochEnd] = []
    for moment in known.moments:
        if not steps or loss_key(record, moment.value) < loss_key(record, steps[-1].value):
            steps.append(moment)
    return steps


def _span(trial: TrialRecord) -> tuple[float, float] | None:
    """Return when a trial started and ended, in seconds; a running trial has lasted as long as its epochs."""
    if trial.started is None or not trial.epochs or trial.state == "failed":
        return None
    begun = trial.started.timestamp()
    end = _timestamp(trial.ended)
    return begun, max(begun, begun + _trained(trial) if end is None else end)


def _timestamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _trained(trial: TrialRecord) -> float:
    return sum(e.epoch_seconds for e in trial.epochs if math.isfinite(e.epoch_seconds))


def _busy(trial: TrialRecord) -> float:
    """Return the seconds for which a trial itself accounts.

    The time from start to end of a trial that was interrupted includes the interruption.
    """
    stages = sum(s for s in trial.stages.values() if math.isfinite(s))
    return max(stages, _trained(trial))


def _epochs(
    record: SearchRecord, trial: TrialRecord, begun: float, end: float
) -> Iterator[tuple[float, int, float]]:
    whole = _trained(trial)
    passed = 0.0
    for count, epoch in enumerate(trial.epochs, 1):
        passed += epoch.epoch_seconds if math.isfinite(epoch.epoch_seconds) else 0.0
        # Trials of very old records have no durations: their epochs are spread evenly.
        share = passed / whole if whole > 0 else count / len(trial.epochs)
        if math.isfinite(value := epoch.metric(record.metric)):
            yield begun + share * (end - begun), epoch.epoch, value


def _pauses(busy: list[tuple[float, float]], origin: float) -> Iterator[tuple[float, float]]:
    """Yield the gaps after ``origin`` in which no trial was busy, if longer than :data:`MIN_PAUSE_SECONDS`."""
    reached = origin
    for begun, end in sorted(busy):
        if begun - reached > MIN_PAUSE_SECONDS:
            yield reached, begun
        reached = max(reached, end)


def _without(seconds: float, pauses: list[tuple[float, float]]) -> float:
    """Return ``seconds`` without the parts of ``pauses`` that lie before it."""
    return seconds - sum(min(seconds, end) - begun for begun, end in pauses if begun < seconds)
