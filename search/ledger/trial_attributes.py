"""How a ledger keeps in Optuna's attributes of a trial what Optuna has no place for: its curve and its cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from trainables.epoch_metrics import EpochMetrics

CHUNK_EPOCHS = 32
"""Epochs that are kept in one attribute: an epoch rewrites its chunk, not the whole curve."""

_CURVE = "curve"


def newest_curve_chunk(epochs: tuple[EpochMetrics, ...]) -> tuple[str, list[list[float | str]]]:
    """Name and value of the attribute that holds the newest of ``epochs``, of which there is at least one."""
    begin = (len(epochs) - 1) // CHUNK_EPOCHS * CHUNK_EPOCHS
    return f"{_CURVE}:{begin}", [_row(epoch) for epoch in epochs[begin:]]


def read_curve(attributes: Mapping[str, Any]) -> tuple[EpochMetrics, ...]:
    """All epochs; earlier ledgers kept them in one attribute."""
    chunks = {int(k.partition(":")[2] or -1): rows for k, rows in attributes.items() if k.startswith(_CURVE)}
    by_epoch = {int(row[0]): row for _, rows in sorted(chunks.items()) for row in rows}
    return tuple(EpochMetrics(epoch, *map(float, row[1:])) for epoch, row in sorted(by_epoch.items()))


def read_cost(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Stages and cost, as they are written now or were (stages alone)."""
    known = attributes.get("spent", {"stages": attributes.get("stages", {})})
    return {"stages": known.get("stages", {}), "cost": known.get("cost", {})}


def json_safe(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` as JSON can hold them: no infinities, six decimals."""
    rounded = {k: round(v, 6) if isinstance(v, float) and math.isfinite(v) else v for k, v in values.items()}
    return {k: v for k, v in rounded.items() if not isinstance(v, float) or math.isfinite(v)}


def to_utc(moment: datetime | None) -> datetime | None:
    """Optuna's times are local and say no zone."""
    return moment.astimezone(UTC) if moment else None


def _row(epoch: EpochMetrics) -> list[float | str]:
    values = (epoch.val_accuracy, epoch.val_loss, epoch.train_loss, epoch.epoch_seconds)
    return [epoch.epoch, *(v if math.isfinite(v) else str(v) for v in values)]
