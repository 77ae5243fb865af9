"""Define what every trial reports after each epoch.

The same object goes from the training loop through the ledger to MLflow and the report:

1. :meth:`trainables.training.training.Training.run_epoch` returns it in the engine's process.
2. :class:`search.execution.engines.messages.EpochResult` carries it to the actor of the trial, which reports it to
   Ray Tune.
3. :class:`search.execution.searcher.LedgerSearcher` writes it to the ledger by
   :meth:`search.ledger.ledger.Ledger.report`.
4. :class:`search.study.phase.Phase` publishes the changed record, a few times per second at most, to the
   :class:`search.tracking.delivery.Delivery` that ``PhaseRunner.delivery`` has opened. It wakes its thread, in which
   :class:`search.tracking.mirror.Mirror` sends MLflow what it does not have yet.

The directions, units and descriptions of the metrics are in :mod:`search.records.metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of one epoch of one trial.

    Attributes:
        epoch: number of the epoch, from 1.
        val_accuracy: share of the validation images that are classified correctly.
        val_loss: mean loss per validation image.
        train_loss: mean loss per training image.
        epoch_seconds: duration of the epoch.
    """

    epoch: int
    val_accuracy: float
    val_loss: float
    train_loss: float
    epoch_seconds: float

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> EpochMetrics:
        """Read the metrics from what a trial reported, which may contain more."""
        names = [field.name for field in fields(cls) if field.name != "epoch"]
        return cls(int(result["epoch"]), *(float(result[name]) for name in names))

    def metric(self, name: str) -> float:
        """Return the value of the metric ``name``."""
        return float(getattr(self, name))

    def better_than(self, other: EpochMetrics | None, metric: str) -> bool:
        """Return whether this epoch's weights should be kept instead of ``other``'s.

        Ties, and every metric other than ``val_accuracy``, go to the lower validation loss.
        """
        if other is None:
            return True
        if metric == "val_accuracy" and self.val_accuracy != other.val_accuracy:
            return self.val_accuracy > other.val_accuracy
        return self.val_loss < other.val_loss
