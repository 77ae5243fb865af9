"""Parameter importances find the parameters that matter, with intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.records.stats.importance import EvaluatedTrial, importance_intervals, importances

SPACE: dict[str, Any] = {
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
    "unfreeze_depth": IntDistribution(0, 4),
    "noise": FloatDistribution(0.0, 1.0),
    "head_units": CategoricalDistribution([0, 64, 128]),
}


def trials(count: int, seed: int = 0) -> list[EvaluatedTrial]:
    """Return trials whose value depends mostly on the learning rate, a little on the depth, and on nothing else."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        params = {
            "learning_rate": float(10 ** random.uniform(-4, -1)),
            "unfreeze_depth": int(random.integers(0, 5)),
            "noise": float(random.random()),
            "head_units": [0, 64, 128][random.integers(3)],
        }
        value = 0.1 * params["unfreeze_depth"] - (math.log10(params["learning_rate"]) + 2.5) ** 2
        found.append(EvaluatedTrial(params, SPACE, value + 0.02 * random.normal()))
    return found


def test_important_parameters_are_found_and_shares_sum_to_one() -> None:
    found = importances(trials(60), "maximize")
    assert max(found, key=lambda name: found[name]) == "learning_rate"
    assert found["learning_rate"] > 3 * max(found["noise"], found["head_units"])
    assert sum(found.values()) == pytest.approx(1)
    turned = [EvaluatedTrial(t.params, t.distributions, -t.value) for t in trials(60)]
    assert importances(turned, "minimize") == pytest.approx(found)


def test_intervals_contain_their_estimates_and_lie_within_0_and_1() -> None:
    known = trials(24)
    found = importance_intervals(known, "maximize")
    assert {name: interval.estimate for name, interval in found.items()} == importances(known, "maximize")
    for interval in found.values():
        assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
    assert found == importance_intervals(known, "maximize")


def test_more_trials_narrow_the_intervals() -> None:
    few, many = (importance_intervals(trials(count), "maximize")["learning_rate"] for count in (12, 150))
    assert many.high - many.low < 0.6 * (few.high - few.low)
    assert many.low > 0.3


def test_without_any_effect_no_parameter_stands_out() -> None:
    random = np.random.default_rng(3)
    known = [EvaluatedTrial(t.params, SPACE, float(random.random())) for t in trials(24)]
    found = importance_intervals(known, "maximize")
    first, second, *_ = sorted(found.values(), key=lambda interval: -interval.estimate)
    assert first.low < second.estimate


def test_trials_may_lack_a_parameter() -> None:
    known = trials(20)
    bare = {name: part for name, part in SPACE.items() if name != "noise"}
    some = [
        EvaluatedTrial({n: v for n, v in t.params.items() if n != "noise"}, bare, t.value) if place % 2 else t
        for place, t in enumerate(known)
    ]
    assert set(importance_intervals(some, "maximize")) == set(SPACE)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_trials_have_no_importances(count: int) -> None:
    assert importances(trials(count), "maximize") == importance_intervals(trials(count), "maximize") == {}


def test_equal_values_have_no_importances() -> None:
    assert importances([EvaluatedTrial(t.params, SPACE, 0.5) for t in trials(10)], "maximize") == {}
