"""Define every metric and objective of a search: its name, direction, unit and description.

This table is the only list of these names. Validation, help texts, docs, MLflow and charts are derived from it. A
metric of every epoch is also a field of :class:`trainables.epoch_metrics.EpochMetrics`, which the training loop
fills.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: its name in options, files and MLflow.
        direction: whether greater or smaller values are better.
        unit: what its values count, for axes and messages; ``fraction`` is shown as a percentage.
        help: what it measures, in a line for the help page.
        every_epoch: whether training reports it after each epoch. The others are serving costs: they depend on the
            architecture alone and are measured once for each.
    """

    name: str
    direction: Direction
    unit: str
    help: str
    every_epoch: bool = True


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("val_accuracy", "maximize", "fraction", "share of validation images classified correctly"),
        Metric("val_loss", "minimize", "nats", "mean loss per validation image"),
        Metric("train_loss", "minimize", "nats", "mean loss per training image"),
        Metric("epoch_seconds", "minimize", "s", "duration of an epoch in seconds"),
        Metric(
            "latency_ms",
            "minimize",
            "ms",
            "milliseconds that the served model takes for a single image on the driver's machine",
            every_epoch=False,
        ),
        Metric(
            "parameters",
            "minimize",
            "parameters",
            "number of parameters of the served model",
            every_epoch=False,
        ),
        Metric(
            "megabytes",
            "minimize",
            "MB",
            "size of the served model's weights in megabytes (10^6 bytes)",
            every_epoch=False,
        ),
    )
}

# The order is that of the columns in trials.parquet and in the ledger, and of the fields of EpochMetrics.
EPOCH_METRICS = tuple(name for name, metric in METRICS.items() if metric.every_epoch)
"""Names of the metrics that every trial reports after each epoch."""

SERVING_COSTS: Mapping[str, str] = {n: metric.help for n, metric in METRICS.items() if not metric.every_epoch}
"""Descriptions of the costs of serving a model. They can be objectives in addition to one of the epoch metrics."""


def objective_column(name: str) -> str:
    """Return the name of an objective's best value, next to the curves: ``best_val_loss``, ``latency_ms``."""
    # A serving cost has one value per trial, so that there is no curve with the same name.
    return f"best_{name}" if name in EPOCH_METRICS else name


def is_fraction(name: str) -> bool:
    """Return whether values of the metric ``name`` are fractions, which are shown as percentages."""
    return METRICS[name].unit == "fraction" if name in METRICS else False
