"""The Pareto front agrees with its definition and with Optuna's own."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import optuna
import pytest

from search.config.objectives import values_at_best
from search.execution.resuming_scheduler import is_dominated
from search.execution.stop_conditions import Patience
from search.records.epoch_plan import EpochPlan
from search.records.pareto import diverse_subset, dominates, knee, objective_losses, pareto_front
from search.records.record import TrialRecord, pareto_trials
from search.records.stats.latency_ratios import comparable_latencies
from trainables.epoch_metrics import EpochMetrics

NAMES = ("val_accuracy", "latency_ms")


def epoch(number: int, accuracy: float, loss: float = 0.5) -> EpochMetrics:
    return EpochMetrics(number, accuracy, loss, loss, 0.1 * number)


def trial(number: int, accuracies: list[float], latency: float, state: str = "complete") -> TrialRecord:
    epochs = tuple(epoch(n, value) for n, value in enumerate(accuracies, start=1))
    values = values_at_best(epochs, NAMES, {"latency_ms": latency})
    return TrialRecord(
        number=number,
        state=state,  # type: ignore[arg-type]
        method="finetune",
        params={},
        value=max(accuracies, default=None),
        epochs=epochs,
        objectives=values,
    )


def test_losses_follow_directions_and_need_finite_values() -> None:
    assert objective_losses({"val_accuracy": 0.9, "latency_ms": 3.0}, NAMES) == (-0.9, 3.0)
    assert objective_losses({"latency_ms": 3.0}, NAMES) is None
    assert objective_losses({"val_accuracy": math.nan, "latency_ms": 3.0}, NAMES) is None
    assert objective_losses({"val_accuracy": 0.9, "latency_ms": math.inf}, NAMES) is None


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_no_point_of_the_front_is_dominated_and_every_other_is(objectives: int) -> None:
    generator = np.random.default_rng(objectives)
    for count in (1, 2, 40):
        points = [tuple(map(float, row)) for row in generator.integers(0, 6, (count, objectives))]
        found = set(pareto_front(points))
        for index, point in enumerate(points):
            assert (index in found) is not any(dominates(other, point) for other in points)
    assert pareto_front([]) == []


def test_the_front_is_in_the_order_of_the_first_objective_and_equal_points_stay() -> None:
    trials = (trial(0, [0.8], 2.0), trial(1, [0.9], 5.0), trial(2, [0.9], 5.0), trial(3, [0.9], 6.0))
    assert [t.number for t in pareto_trials(trials, NAMES)] == [1, 2, 0]
    assert pareto_trials(trials, ()) == ()


def test_only_complete_trials_with_all_numbers_are_on_the_front() -> None:
    trials = (
        trial(0, [0.99], 1.0, "pruned"),
        trial(1, [], 0.5),
        trial(2, [math.nan], 0.5),
        trial(3, [0.5], 2.0),
        trial(4, [0.4], math.nan),
    )
    assert [t.number for t in pareto_trials(trials, NAMES)] == [3]


@pytest.mark.parametrize("names", [NAMES, ("val_accuracy", "parameters", "val_loss")])
def test_the_front_equals_that_of_optuna(names: tuple[str, ...]) -> None:
    generator = np.random.default_rng(len(names))
    study = optuna.create_study(directions=["maximize", *["minimize"] * (len(names) - 1)])
    trials = []
    for number in range(60):
        values = [round(float(v), 1) for v in generator.normal(size=len(names))]
        told = study.ask()
        pruned = number % 5 == 0
        study.tell(told, None if pruned else values, optuna.trial.TrialState.PRUNED if pruned else None)
        state = "pruned" if pruned else "complete"
        trials.append(
            TrialRecord(number, state, "finetune", {}, objectives=dict(zip(names, values, strict=True)))  # type: ignore[arg-type]
        )
    ours = {t.number for t in pareto_trials(trials, names)}
    assert ours == {t.number for t in study.best_trials}
    assert len(ours) > 1


def test_values_are_those_of_the_best_epoch_by_the_first_objective() -> None:
    epochs = [epoch(1, 0.5, 0.9), epoch(2, 0.7, 0.4), epoch(3, 0.7, 0.3), epoch(4, 0.6, 0.1)]
    names = ("val_accuracy", "val_loss", "epoch_seconds", "megabytes")
    values = values_at_best(epochs, names, {"megabytes": 1.5, "parameters": 7})
    assert values == pytest.approx(
        {"val_accuracy": 0.7, "val_loss": 0.3, "epoch_seconds": 0.25, "megabytes": 1.5}
    )
    assert values_at_best([], names, {"megabytes": 1.5}) == {"megabytes": 1.5}
    assert values_at_best([epoch(1, math.nan)], names, {"megabytes": 1.5}) == {"megabytes": 1.5}


def test_the_diverse_subset_of_a_large_front_has_its_ends_its_knee_and_no_equal_points() -> None:
    curve = [(x / 20, (1 - x / 20) ** 4) for x in range(21)]
    points = [*curve, curve[3]]
    chosen = diverse_subset(points, 5)
    assert len(chosen) == 5
    assert {0, 20, knee(points)} <= set(chosen)
    assert 2 < knee(points) < 10
    assert max(b - a for a, b in pairwise(chosen)) <= 12
    assert diverse_subset([*points[:4], points[0]], 5) == [0, 1, 2, 3]
    assert diverse_subset(points, 1) == [0]
    assert diverse_subset([(1.0, 2.0)], 5) == [0]
    assert knee([(1.0, 2.0)]) == 0


def test_patience_counts_trials_without_a_new_point_of_the_front() -> None:
    patience = Patience(objectives=NAMES)
    for number, (accuracy, latency, since) in enumerate(
        [(0.8, 3.0, 0), (0.8, 3.0, 1), (0.7, 4.0, 2), (0.7, 2.0, 0), (0.9, 1.0, 0), (0.8, 1.5, 1)]
    ):
        patience.trial_ended(trial(number, [accuracy], latency), "maximize")
        assert patience.since == since, number
    patience.trial_ended(trial(9, [1.0], 0.1, "pruned"), "maximize")
    assert patience.since == 2


def test_a_scheduler_may_stop_only_trials_that_are_dominated_at_the_same_epoch() -> None:
    plan = EpochPlan(4)
    strong, cheap = trial(0, [0.6, 0.9], 5.0, "running"), trial(1, [0.3], 2.0, "running")
    assert not is_dominated(
        [strong, cheap], cheap, epoch(1, 0.3), NAMES, plan
    )  # weaker, but nothing cheaper is as good
    assert is_dominated([strong, trial(2, [0.5], 5.0)], trial(2, [0.5], 5.0), epoch(1, 0.5), NAMES, plan)
    slow = trial(3, [0.2, 0.3, 0.5], 2.0)
    assert not is_dominated(
        [strong, slow], cheap, epoch(1, 0.3), NAMES, plan
    )  # at its first epoch it was worse
    assert is_dominated([strong, slow], trial(1, [0.3], 2.0), epoch(3, 0.4), NAMES, plan)
    for state in ("failed", "pruned"):
        other = TrialRecord(**{**vars(trial(4, [0.9], 1.0, state)), "reason": "diverged"})
        assert not is_dominated([other], cheap, epoch(1, 0.3), NAMES, plan)
    assert is_dominated([], cheap, epoch(1, math.nan), NAMES, plan)


def test_architectures_without_a_significant_difference_have_one_latency() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        load = np.exp(generator.exponential(0.5, 120))  # of a busy machine, the same for all in a round
        noise = np.exp(generator.normal(0, 0.08, (4, 120)))
        times = np.array([3.0, 3.03, 4.0, 6.0])[:, None] * load * noise
        found = comparable_latencies(times, {})
        assert found[0] == found[1]
        assert found[2] / found[0] == pytest.approx(4 / 3, rel=0.08)
        assert found[3] / found[0] == pytest.approx(2, rel=0.08)


def test_a_new_architecture_is_compared_with_those_that_have_a_latency() -> None:
    generator = np.random.default_rng(1)
    times = np.array([6.0, 9.0, 6.02])[:, None] * np.exp(
        generator.normal(0, 0.05, (3, 100))
    )  # twice as slow now
    found = comparable_latencies(times, {0: 3.0})
    assert found[0] == found[2] == 3.0
    assert found[1] == pytest.approx(4.5, rel=0.05)


def test_a_gradual_ramp_is_not_one_latency() -> None:
    times = np.array([1.0, 1.02, 1.04, 1.06, 1.08])[:, None] * np.ones((1, 60))
    found = comparable_latencies(times, {})
    assert found[0] == found[1] == 1.0
    assert found[-1] > 1.03


def test_two_rounds_are_not_significant(tmp_path: Path) -> None:
    assert comparable_latencies(np.array([[3.0, 3.0], [3.2, 2.9]]), {}) == [3.0, 3.0]
