"""Accounts for what a trial costs: seconds by stage of work, and what it reused, computed and compiled."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

STAGES: Mapping[str, str] = {
    "start": "starting",
    "data": "reading and augmenting images",
    "prefix": "the frozen part of the backbone",
    "probe": "training the linear probes that heads start from",
    "wait": "waiting for other trials",
    "compile": "compiling",
    "suffix": "training the unfrozen part and the head",
    "evaluate": "evaluation",
    "checkpoint": "checkpoints",
}
"""Stages of a trial's work, each with its description for reports. The names are stored with every trial and must not
change.

``prefix`` is the frozen part of the backbone, computed or read from the cache. ``probe`` trains a head that other
trials start from, too. ``suffix`` is the training of the blocks and the head. ``wait`` is time spent waiting for other
trials: for what they compute or compile for all, and for their shares of a batch of heads."""


@dataclass
class CostCounts:
    """What a trial took over from others, and what it computed. The names are stored with every trial.

    Attributes:
        hits: how many times kept activations of a split were read.
        misses: how many times activations of a split had to be computed.
        derived: how many of these were computed from kept activations of a lower cut.
        bytes_read: bytes of kept activations that were read.
        bytes_written: bytes of activations that were computed and kept.
        saved_seconds: estimated time that the frozen prefix would have taken for what was read instead.
        programs_compiled: how many programs were compiled for this trial.
        epochs_together: epochs in which its head was trained in one batch with those of other trials.
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
        """Add the amounts to the counts of the same names."""
        for name, amount in amounts.items():
            setattr(self, name, getattr(self, name) + amount)


@dataclass
class CostAccount:
    """The costs of one trial. Use it from one thread at a time.

    Attributes:
        stage_seconds: seconds by stage of work (:data:`STAGES`). Stages exclude each other, so the sum is the trial's
            time.
        counts: what was reused, computed and compiled.
    """

    stage_seconds: dict[str, float] = field(default_factory=dict)
    counts: CostCounts = field(default_factory=CostCounts)
    _nested_seconds: float = 0.0

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Charge the time of the block to ``stage``, except for what is charged to other stages inside it."""
        # ``_nested_seconds`` is what has been charged since the enclosing block began: that block leaves it out.
        began, outside = time.perf_counter(), self._nested_seconds
        self._nested_seconds = 0.0
        try:
            yield
        finally:
            passed = time.perf_counter() - began
            self._add(stage, passed - self._nested_seconds)
            self._nested_seconds = outside + passed

    def charge(self, stage: str, seconds: float) -> None:
        """Charge ``seconds`` that have just passed to ``stage``, and not to the enclosing block."""
        self._add(stage, seconds)
        self._nested_seconds += seconds

    def describe(self) -> dict[str, Any]:
        """Return seconds and counts as JSON values, which a checkpoint stores."""
        return {"stages": dict(self.stage_seconds), "counts": asdict(self.counts)}

    def carry_over(self, known: Mapping[str, Any]) -> None:
        """Add what :meth:`describe` returned in an earlier run of the same trial. Unknown counts are ignored.

        Raises:
            KeyError, TypeError, ValueError: ``known`` was not made by :meth:`describe`.
        """
        for stage, seconds in known["stages"].items():
            self._add(str(stage), float(seconds))
        names = {f.name for f in fields(CostCounts)}
        self.counts.add(**{name: _number(value) for name, value in known["counts"].items() if name in names})

    def _add(self, stage: str, seconds: float) -> None:
        # Seconds that are charged were measured elsewhere and may exceed the time of the enclosing block a
        # little.
        self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + max(0.0, seconds)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, received {value!r}")
    return value
