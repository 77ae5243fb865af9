"""What a search cost, and what its trials were spared: totals over its trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from search.records.formatting import plural
from search.records.record import SearchRecord, TrialRecord
from search.records.units import format_duration, format_size

MAX_TRIAL_LINES = 200
"""Trials that the report goes through one by one."""


@dataclass(frozen=True)
class SearchCost:
    """Totals of the trials that said what they cost.

    Attributes:
        trials: how many said so.
        reading: trials that trained on kept activations of the frozen part.
        hits: times that kept activations were read.
        misses: times that activations were computed.
        derived: how many of those were computed from a lower cut.
        bytes_read: of kept activations.
        bytes_written: of activations that were computed and kept.
        saved_seconds: of the frozen part that were not spent, by its measured rate; what had no rate counts as 0.
        programs_compiled: how many.
        compile_seconds: what they took.
        epochs_together: of heads that trained in one batch with others.
        wait_seconds: in which trials waited for each other.
    """

    trials: int
    reading: int
    hits: int
    misses: int
    derived: int
    bytes_read: int
    bytes_written: int
    saved_seconds: float
    programs_compiled: int
    compile_seconds: float
    epochs_together: int
    wait_seconds: float

    def describe(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {name: round(v, 3) if isinstance(v, float) else v for name, v in asdict(self).items()}


def search_cost(record: SearchRecord) -> SearchCost:
    """The totals of ``record``'s trials."""
    known = [trial for trial in record.trials if trial.cost]
    return SearchCost(
        trials=len(known),
        reading=sum(trial.cost.get("reuse") is True for trial in known),
        hits=int(_total(known, "hits")),
        misses=int(_total(known, "misses")),
        derived=int(_total(known, "derived")),
        bytes_read=int(_total(known, "bytes_read")),
        bytes_written=int(_total(known, "bytes_written")),
        saved_seconds=_total(known, "saved_seconds"),
        programs_compiled=int(_total(known, "programs_compiled")),
        compile_seconds=_stage(known, "compile"),
        epochs_together=int(_total(known, "epochs_together")),
        wait_seconds=_stage(known, "wait"),
    )


def cost_phrases(cost: SearchCost) -> list[str]:
    """What was reused, and what had to be done, in a few short sentences without a full stop."""
    if not cost.trials:
        return []
    phrases = [f"{cost.reading:,} of {plural(cost.trials, 'trial')} read kept activations"]
    if cost.saved_seconds > 0:
        phrases[0] += f", which saved about {format_duration(cost.saved_seconds)} of frozen forward passes"
    phrases.append(
        f"{plural(cost.programs_compiled, 'program')} compiled for {plural(cost.trials, 'trial')} "
        f"in {format_duration(cost.compile_seconds)}"
    )
    if cost.epochs_together:
        phrases.append(f"{plural(cost.epochs_together, 'epoch')} of heads trained in one batch with others")
    return phrases


def cost_rows(cost: SearchCost) -> list[tuple[str, str]]:
    """(what, how much) for the report."""
    if not cost.trials:
        return []
    return [
        ("trials that read kept activations", f"{cost.reading:,} of {cost.trials:,}"),
        ("kept activations found", f"{_times(cost.hits)}, {format_size(cost.bytes_read)} read"),
        (
            "activations computed",
            f"{_times(cost.misses)}{f' ({cost.derived:,} from a lower cut)' if cost.derived else ''}, "
            f"{format_size(cost.bytes_written)} kept",
        ),
        (
            "frozen forward passes saved, by their measured rate",
            f"about {format_duration(cost.saved_seconds)}",
        ),
        (
            "programs compiled",
            f"{cost.programs_compiled:,} for {plural(cost.trials, 'trial')}, "
            f"{format_duration(cost.compile_seconds)}",
        ),
        ("epochs of heads that trained together with others", f"{cost.epochs_together:,}"),
        ("waiting of trials for each other", format_duration(cost.wait_seconds)),
    ]


def trial_cost_lines(record: SearchRecord) -> list[tuple[int, str]]:
    """(number, what it cost in a line) of each trial that said so, but of no more than MOST_LINES."""
    known = sorted((trial for trial in record.trials if trial.cost), key=lambda trial: trial.number)
    return [(trial.number, _line(trial)) for trial in known[:MAX_TRIAL_LINES]]


def activations_phrase(trial: TrialRecord) -> str:
    """Whether a trial trained on kept activations, and why; empty where it never said."""
    if "reason" not in trial.cost:
        return ""
    place = str(trial.cost.get("place", "none"))
    way = {"memory": "kept in memory", "disk": "kept on disk"}.get(place, "computed live")
    return f"{way}: {trial.cost['reason']}"


def _line(trial: TrialRecord) -> str:
    counts = {name: int(_finite(trial.cost.get(name))) for name in ("hits", "misses", "programs_compiled")}
    compiled = plural(counts["programs_compiled"], "program")
    return f"{activations_phrase(trial)}. {counts['hits']:,} found, {counts['misses']:,} computed; {compiled} compiled"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _total(trials: Sequence[TrialRecord], name: str) -> float:
    return sum(_finite(trial.cost.get(name)) for trial in trials)


def _stage(trials: Sequence[TrialRecord], name: str) -> float:
    return sum(_finite(trial.stages.get(name)) for trial in trials)


def _finite(value: object) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else 0.0  # type: ignore[arg-type]
