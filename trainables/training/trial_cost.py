"""What one trial reused, computed and compiled, as an engine reports it to the driver.

The module imports no TensorFlow: the driver unpickles :class:`TrialCost`, and only the engine that trains loads
TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from trainables.activations.reuse_policy import ReuseDecision
from trainables.cost_account import CostCounts


@dataclass(frozen=True)
class TrialCost:
    """The cost of one trial so far.

    Attributes:
        decision: whether the trial reads cached activations, and why.
        counts: what the trial took over from others, and what it computed.
        old_accuracy_before: accuracy on the old task's validation images before training; None without an old task, and
            before all epochs have run.
        old_accuracy: the same accuracy after training.
        probe: what the frozen probe chose (:meth:`trainables.training.probes.frozen_probe.ProbeChoice.describe`); None
            for other trials.
    """

    decision: ReuseDecision
    counts: CostCounts
    old_accuracy_before: float | None = None
    old_accuracy: float | None = None
    probe: Mapping[str, float | str] | None = None

    def to_json(self) -> dict[str, float | str | bool]:
        """Return all values in one flat dictionary, as the ledger stores them; accuracies and probe only if known.

        The keys are the names of the fields. Ledgers, ``trials.parquet`` and ``best.json`` have them, so they must not
        change.
        """
        accuracies = {"old_accuracy_before": self.old_accuracy_before, "old_accuracy": self.old_accuracy}
        known = {name: accuracy for name, accuracy in accuracies.items() if accuracy is not None}
        return {**self.decision.describe(), **asdict(self.counts), **known, **(self.probe or {})}
