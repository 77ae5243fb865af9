"""Build records of searches that were not run, for tests of code that reads records."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from search.records.record import (
    BackboneSummary,
    Calibration,
    CalibrationBin,
    ErrorExample,
    Interval,
    Outcome,
    SearchRecord,
    TaskSummary,
    TrialRecord,
)
from trainables.epoch_metrics import EpochMetrics

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360000000000500015d0b2d0e0000000049454e44ae426082"
)
STARTED = datetime(2025, 3, 14, 14, 2, tzinfo=UTC)


def curve(best: float, epochs: int) -> tuple[EpochMetrics, ...]:
    return tuple(
        EpochMetrics(e, best * (1 - math.exp(-e)), 1 - best, 0.9 - best * 0.5, 0.25)
        for e in range(1, epochs + 1)
    )


def trial(number: int, epochs: int = 5) -> TrialRecord:
    """A trial record. Trials at depth 0 have no backbone_lr_ratio; every seventh fails, every fifth is pruned."""
    depth, value = number % 3, round(0.5 + 0.4 * ((number * 0.618) % 1), 4)
    params: dict[str, Any] = {
        "unfreeze_depth": depth,
        "learning_rate": 10 ** (-4 + (number * 0.37) % 2),
        "head_units": (0, 64)[number % 2],
        "augmentation_strength": (number % 5) / 4,
        "horizontal_flip": number % 4 == 0,
    }
    if depth:
        params["backbone_lr_ratio"] = 0.1 + 0.1 * (number % 3)
    known = TrialRecord(number, "complete", "finetune", params, value, curve(value, epochs), seed=number)
    begun = STARTED + timedelta(seconds=3 * number)
    known = replace(known, stages={"data": 0.5, "suffix": 2.0, "compile": 0.25}, started=begun)
    known = replace(known, ended=begun + timedelta(seconds=4))
    if number % 7 == 6:
        return replace(known, state="failed", value=None, epochs=(), reason="crashed", error="ValueError: no")
    return replace(known, state="pruned", reason="scheduler") if number % 5 == 4 else known


def outcome(winner: TrialRecord, **changes: Any) -> Outcome:
    known = Outcome(
        trial=winner.number,
        params=winner.params,
        seeds=(0, 1),
        val_accuracies=(0.91, 0.93),
        test_accuracy=Interval(0.954, 0.943, 0.965),
        seed_test_accuracies=(0.95, 0.954),
        confusion=((50, 2, 0), (0, 47, 3), (1, 0, 49)),
        scratch_params={"learning_rate": 0.01, "head_units": 0},
        scratch_trials=12,
        scratch_test_accuracies=(0.92, 0.93),
        gain=Interval(0.0271, 0.0132, 0.0408),
        verdict="helps",
        calibration=Calibration(
            (
                CalibrationBin(0.7, 0.8, 40, 0.76, Interval(0.7, 0.54, 0.82)),
                CalibrationBin(0.9, 1.0, 112, 0.97, Interval(0.99, 0.95, 1)),
            ),
            Interval(0.031, 0.0, 0.05),
            0.04,
            Interval(0.001, -0.02, 0.022),
            0.14,
        ),
        examples=(ErrorExample(PNG, "cat", "dog", 0.81), ErrorExample(PNG, "dog", "dog", 0.99)),
        model_name="unfreeze-pets",
        model_version="3",
        seconds=31.0,
    )
    return replace(known, **changes)


def search(trials: int = 12, epochs: int = 5, **changes: Any) -> SearchRecord:
    known = SearchRecord(
        name="pets-1",
        metric="val_accuracy",
        direction="maximize",
        task=TaskSummary(
            "pets", "9f2c41d0", ("cat", "dog", "wolf"), {"train": 90, "test": 152}, (64, 64), "pets/"
        ),
        backbone=BackboneSummary("print", "default", "b41fe0c2", (32, 32), 64_912, ("stem", "middle", "top")),
        config={"data": "pets/", "epochs": epochs, "seed": 7},
        trials=tuple(trial(number, epochs) for number in range(trials)),
        requested=trials,
        started=STARTED,
        elapsed=timedelta(minutes=4, seconds=5).total_seconds(),
        importances={"learning_rate": 0.6, "unfreeze_depth": 0.3, "head_units": 0.1},
        storage="runs",
    )
    return replace(known, **changes)


def finished(trials: int = 12, epochs: int = 5, **changes: Any) -> SearchRecord:
    known = search(trials, epochs)
    assert known.best is not None
    return replace(known, outcome=outcome(known.best), **changes)
