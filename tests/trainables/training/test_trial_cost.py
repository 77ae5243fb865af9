"""The cost of a trial keeps the keys under which ledgers and result files have stored it since version 0.1."""

from __future__ import annotations

import pickle

from trainables.activations.reuse_policy import ReuseDecision
from trainables.cost_account import CostCounts
from trainables.training.trial_cost import TrialCost

STORED = {
    "reuse": True,
    "place": "disk",
    "reason": "small",
    "depth": 1,
    "level": 0.5,
    "views": 8,
    "kept": 2,
    "sharing": 3,
    "bytes": 4096,
    "prefix_rate": 10.0,
    "read_rate": 20.0,
    "live_seconds": 30.0,
    "reuse_seconds": 15.0,
    "hits": 40,
    "misses": 8,
    "derived": 2,
    "bytes_read": 60,
    "bytes_written": 12,
    "saved_seconds": 90.0,
    "programs_compiled": 1,
    "epochs_together": 5,
}
COST = TrialCost(
    ReuseDecision(True, "disk", "small", 1, 0.5, 8, 2, 3, 4096, 10.0, 20.0, 30.0, 15.0),
    CostCounts(40, 8, 2, 60, 12, 90.0, 1, 5),
)


def test_the_stored_keys_and_their_order() -> None:
    assert list(COST.to_json().items()) == list(STORED.items())


def test_accuracies_on_the_old_task_are_stored_if_they_are_known() -> None:
    known = TrialCost(COST.decision, COST.counts, old_accuracy_before=0.75, old_accuracy=0.0)
    assert known.to_json() == {**STORED, "old_accuracy_before": 0.75, "old_accuracy": 0.0}


def test_what_the_probe_chose_is_stored_with_the_cost_of_its_trial() -> None:
    probe = {"probe_cut": "block_4", "probe_depth": 1, "probe_cv_accuracy": 0.5}
    assert TrialCost(COST.decision, COST.counts, probe=probe).to_json() == {**STORED, **probe}


def test_a_cost_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(COST)) == COST  # noqa: S301
