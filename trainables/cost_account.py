"""What one trial costs: seconds by stage of work, and what it found, computed and compiled."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

STAGES = ("start", "data", "prefix", "probe", "wait", "compile", "suffix", "evaluate", "checkpoint")
"""Stages of a trial's work. ``prefix`` is the frozen part, computed or read; ``probe`` trains a head that other trials
start from, too; ``wait`` is for other trials: what they compute or compile for all, and their shares of heads that
train together."""


@dataclass
class CostCounts:
    """What a trial got from others, and what it made.

    Attributes:
        hits: times that kept activations of a split were read.
        misses: times that activations of a split had to be computed.
        derived: how many of those were computed from a lower cut.
        bytes_read: of kept activations.
        bytes_written: of activations that it computed and kept.
        saved_seconds: that the frozen prefix would have taken over what was read instead, by its measured rate.
        programs_compiled: how many.
        epochs_together: in which its head trained in one batch with those of other trials.
    """

    hits: int = 0
    misses: int = 0
    derived: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    saved_seconds: float = 0.0
    programs_compiled: int = 0
    epochs_together: int = 0

    def add(self, **amounts: float) -> None:
        """Add to each count of that name."""
        for name, amount in amounts.items():
            setattr(self, name, getattr(self, name) + amount)


@dataclass
class CostAccount:
    """Kept by one trial, in the thread that works for it. ``stages`` maps a stage of work to seconds."""

    stage_seconds: dict[str, float] = field(default_factory=dict)
    counts: CostCounts = field(default_factory=CostCounts)
    _nested_seconds: float = 0.0

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Charge what happens inside to ``stage``, but for what is charged to another stage meanwhile."""
        began, outside = time.perf_counter(), self._nested_seconds
        self._nested_seconds = 0.0
        try:
            yield
        finally:
            passed = time.perf_counter() - began
            self._add(stage, passed - self._nested_seconds)
            self._nested_seconds = outside + passed

    def charge(self, stage: str, seconds: float) -> None:
        """Charge ``seconds`` that have just passed to ``stage``."""
        self._add(stage, seconds)
        self._nested_seconds += seconds

    def describe(self) -> dict[str, Any]:
        """Stages and counts as JSON values."""
        return {"stages": dict(self.stage_seconds), "counts": asdict(self.counts)}

    def carry_over(self, known: Mapping[str, Any]) -> None:
        """Add what :meth:`describe` said of an earlier run of the same trial.

        Raises:
            KeyError, TypeError, ValueError: ``known`` is something else.
        """
        for stage, seconds in known["stages"].items():
            self._add(str(stage), float(seconds))
        names = {f.name for f in fields(CostCounts)}
        self.counts.add(**{name: _number(value) for name, value in known["counts"].items() if name in names})

    def _add(self, stage: str, seconds: float) -> None:
        self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + max(0.0, seconds)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, received {value!r}")
    return value
