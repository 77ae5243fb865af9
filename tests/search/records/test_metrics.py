"""The table of metrics agrees with what training reports."""

from __future__ import annotations

from dataclasses import fields

from search.records.metrics import EPOCH_METRICS, METRICS, SERVING_COSTS
from trainables.epoch_metrics import EpochMetrics


def test_every_epoch_metric_is_a_field_of_what_training_reports() -> None:
    assert [field.name for field in fields(EpochMetrics)] == ["epoch", *EPOCH_METRICS]


def test_every_metric_has_direction_unit_and_help() -> None:
    assert set(METRICS) == {*EPOCH_METRICS, *SERVING_COSTS}
    for metric in METRICS.values():
        assert metric.direction in ("maximize", "minimize")
        assert metric.unit
        assert metric.help
