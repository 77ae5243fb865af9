"""Add up what a search cost and what the reuse of activations and compiled programs saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from search.records.formatting import plural
from search.records.record import SearchRecord, TrialRecord
from search.records.units import format_duration, format_size

MAX_TRIAL_LINES = 200
"""The report lists the cost of at most this many trials one by one."""


@dataclass(frozen=True)
class SearchCost:
    """Totals over the trials that reported their cost.

    Attributes:
        trials: number of trials that reported a cost.
        reading: trials that trained on cached activations of the frozen part.
        hits: times that cached activations were read.
        misses: times that activations were computed.
        derived: how many of the misses were computed from activations of a lower cut.
        bytes_read: bytes of cached activations that were read.
        bytes_written: bytes of activations that were computed and cached.
        saved_seconds: seconds of frozen forward passes that were not spent, by their measured rate; where no rate
            was measured, 0 is counted.
        programs_compiled: number of compiled programs.
        compile_seconds: seconds spent on compiling.
        epochs_together: epochs of heads that trained in one batch with other heads.
        wait_seconds: seconds that trials waited for each other.
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
        """Return all fields as JSON values, rounded to milliseconds."""
        return {name: round(v, 3) if isinstance(v, float) else v for name, v in asdict(self).items()}


def search_cost(record: SearchRecord) -> SearchCost:
    """Add up the costs of the trials of ``record``."""
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
    """Describe in a few phrases, without full stops, what was reused and what had to be computed."""
    if not cost.trials:
        return []
    phrases = [f"{cost.reading:,} of {plural(cost.trials, 'trial')} read cached activations"]
    if cost.saved_seconds > 0:
        phrases[0] += f", which saved about {format_duration(cost.saved_seconds)} of frozen forward passes"
    phrases.append(
        f"{plural(cost.programs_compiled, 'program')} compiled for {plural(cost.trials, 'trial')} "
        f"in {format_duration(cost.compile_seconds)}"
    )
    if cost.epochs_together:
        phrases.append(
            f"{plural(cost.epochs_together, 'epoch')} of heads trained in one batch with other heads"
        )
    return phrases


def cost_rows(cost: SearchCost) -> list[tuple[str, str]]:
    """Return (description, amount) pairs for the table of costs in the report."""
    if not cost.trials:
        return []
    return [
        ("trials that read cached activations", f"{cost.reading:,} of {cost.trials:,}"),
        ("cached activations read", f"{_times(cost.hits)}, {format_size(cost.bytes_read)} read"),
        (
            "activations computed",
            f"{_times(cost.misses)}{f' ({cost.derived:,} from a lower cut)' if cost.derived else ''}, "
            f"{format_size(cost.bytes_written)} cached",
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
        ("epochs of heads that trained in one batch with other heads", f"{cost.epochs_together:,}"),
        ("time that trials waited for each other", format_duration(cost.wait_seconds)),
    ]


def trial_cost_lines(record: SearchRecord) -> list[tuple[int, str]]:
    """Return (trial number, line of text) for the first :data:`MAX_TRIAL_LINES` trials that reported a cost."""
    known = sorted((trial for trial in record.trials if trial.cost), key=lambda trial: trial.number)
    return [(trial.number, _line(trial)) for trial in known[:MAX_TRIAL_LINES]]


def activations_phrase(trial: TrialRecord) -> str:
    """Return whether a trial trained on cached activations, and why; empty if the trial did not report it."""
    if "reason" not in trial.cost:
        return ""
    place = str(trial.cost.get("place", "none"))
    way = {"memory": "cached in memory", "disk": "cached on disk"}.get(place, "computed live")
    return f"{way}: {trial.cost['reason']}"


def _line(trial: TrialRecord) -> str:
    counts = {name: int(_finite(trial.cost.get(name))) for name in ("hits", "misses", "programs_compiled")}
    compiled = plural(counts["programs_compiled"], "program")
    return f"{activations_phrase(trial)}. {counts['hits']:,} read, {counts['misses']:,} computed; {compiled} compiled"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _total(trials: Sequence[TrialRecord], name: str) -> float:
    return sum(_finite(trial.cost.get(name)) for trial in trials)


def _stage(trials: Sequence[TrialRecord], name: str) -> float:
    return sum(_finite(trial.stages.get(name)) for trial in trials)


def _finite(value: object) -> float:
    # Costs come from a ledger that older versions and other programs may have written. bool is a subclass of int.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else 0.0  # type: ignore[arg-type]
