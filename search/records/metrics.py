"""Metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

EPOCH_METRIC_DIRECTIONS: Mapping[str, str] = {
    "val_accuracy": "maximize",
    "val_loss": "minimize",
    "train_loss": "minimize",
    "epoch_seconds": "minimize",
}


SERVING_COSTS: Mapping[str, str] = {
    "latency_ms": "milliseconds for one image, asked alone, measured on the driver's machine",
    "parameters": "numbers in the served model",
    "megabytes": "of the served model's weights, 10^6 bytes each",
}
"""What a model costs to serve, less being better: objectives beside one of DIRECTIONS."""


OBJECTIVES: Mapping[str, str] = {**EPOCH_METRIC_DIRECTIONS, **dict.fromkeys(SERVING_COSTS, "minimize")}


Direction = Literal["maximize", "minimize"]


EPOCH_METRICS = ("val_accuracy", "val_loss", "train_loss", "epoch_seconds")
"""The metrics that every trial reports after each epoch."""


def objective_column(name: str) -> str:
    """What one of several objectives is called beside a trial's curves: ``best_val_loss``, ``latency_ms``."""
    return f"best_{name}" if name in EPOCH_METRICS else name
