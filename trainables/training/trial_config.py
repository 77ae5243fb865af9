"""What one trial trains: its method, its parameters, and what is fixed for the whole search.

The module imports no TensorFlow: the driver and the trial actors create and unpickle :class:`TrialConfig`, and only the
engine that trains loads TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainables.errors import UsageError

BATCH_NORM: Mapping[str, str] = {
    "auto": "`adapt`, or `frozen` if batches hold fewer than 8 images",
    "adapt": "the unfrozen part learns the statistics of the new data",
    "frozen": "the pretrained statistics are used everywhere",
}
"""The modes of batch normalisation, each with its description for help and docs."""


@dataclass(frozen=True)
class TrialConfig:
    """One trial: ``params`` by the names of the search space, the rest fixed for a whole search.

    ``head_init`` is what the head starts from if ``params`` do not say so; ``random`` is what earlier versions did.
    ``live`` trains on images even where activations could be reused: the way a winner is confirmed. ``stop_epoch`` ends
    the training after that epoch of a schedule of ``epochs``. ``keep`` says which weights a training returns: those of
    its ``best`` epoch, or of its ``last`` one where no validation images are left to judge by.
    """

    method: str
    params: Mapping[str, Any]
    epochs: int = 20
    batch_size: int = 32
    seed: int = 0
    metric: str = "val_accuracy"
    batch_norm: str = "auto"
    live: bool = False
    stop_epoch: int | None = None
    keep: Literal["best", "last"] = "best"
    head_init: str = "random"

    def number(self, name: str, default: float = 0.0) -> float:
        """A numeric parameter, or ``default`` where the trial has no use for it."""
        value = self.params.get(name, default)
        if isinstance(value, str) or not math.isfinite(value):
            raise UsageError(f"{name}: expected a finite number, received {value!r}")
        return float(value)
