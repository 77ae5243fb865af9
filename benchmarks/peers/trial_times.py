"""Hold what a contender reports about its trials: when each began and ended, and its accuracy."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TrialTimes:
    """One trial: start and end in seconds since 1970, its best validation accuracy, and seconds by stage if known."""

    began: float
    ended: float = 0.0
    val_accuracy: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
