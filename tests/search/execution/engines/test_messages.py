"""Test that messages between processes survive pickling and Tune, and need neither Ray nor TensorFlow."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from ray.tune.utils import flatten_dict

from search.execution.engines.messages import EpochResult, SessionSpec, TrialRequest, WorkbenchPaths
from search.execution.trial_actor import TrialAssignment
from trainables.activations.reuse_policy import ReuseDecision
from trainables.cost_account import CostCounts
from trainables.epoch_metrics import EpochMetrics
from trainables.training.trial_config import TrialConfig
from trainables.training.trial_cost import TrialCost

RESULT = EpochResult(
    2,
    False,
    EpochMetrics(2, 0.75, 0.5, 0.25, 1.5),
    stages={"data": 0.5, "suffix": 1.0},
    cost=TrialCost(ReuseDecision(True, "memory", "fits"), CostCounts(hits=2)),
    node="ab",
    engine="cd",
)


def copied(message: Any) -> Any:
    """What arrives in another process."""
    return pickle.loads(pickle.dumps(message))  # noqa: S301


def test_a_result_survives_tune_which_flattens_dictionaries() -> None:
    reported = flatten_dict(copied(RESULT).to_tune())
    assert EpochResult.from_tune(reported) == RESULT
    assert (reported["epoch"], reported["val_accuracy"], reported["done"]) == (2, 0.75, False)


@pytest.mark.parametrize("reported", [None, {}, {"trial_id": "a", "done": True}])
def test_a_trial_that_has_reported_nothing_has_no_result(reported: dict[str, object] | None) -> None:
    assert EpochResult.from_tune(reported) is None


def test_an_assignment_survives_pickling() -> None:
    paths = WorkbenchPaths(Path("backbone"), Path("task"), teacher=WorkbenchPaths(Path("big"), Path("task")))
    request = TrialRequest("distill-3", TrialConfig("distill", {"learning_rate": 1e-3}), paths)
    assignment = TrialAssignment(3, SessionSpec("session"), request, timeout=60.0)
    config = copied(assignment.to_tune())
    assert TrialAssignment.from_tune(config) == assignment


def test_messages_can_not_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        RESULT.done = True  # type: ignore[misc]


def test_equal_paths_are_one_key() -> None:
    first, second = (WorkbenchPaths(Path("backbone"), Path("task"), source=Path("source")) for _ in range(2))
    assert {first: 1}[second] == 1


@pytest.mark.parametrize("module", ["messages", "jobs"])
def test_neither_messages_nor_jobs_load_tensorflow_or_ray(module: str) -> None:
    program = (
        f"import sys, search.execution.engines.{module}\n"
        "print(sorted({'ray', 'tensorflow', 'keras', 'mlflow'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
