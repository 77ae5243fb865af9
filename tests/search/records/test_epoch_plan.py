"""Test how many epochs a trial has if their number is left open."""

from __future__ import annotations

import pytest

from search.records.epoch_plan import (
    EPOCH_LIMITS,
    MIN_SOURCE_EPOCHS,
    TARGET_STEPS,
    EpochPlan,
    epochs_for_steps,
    make_epoch_plan,
)
from trainables.training.schedule import steps_per_epoch


@pytest.mark.parametrize(("images", "batch_size"), [(1, 32), (31, 64), (200, 32), (1077, 32), (10**7, 1)])
def test_trials_take_about_the_target_number_of_steps_within_the_limits(images: int, batch_size: int) -> None:
    epochs, steps = epochs_for_steps(images, batch_size), steps_per_epoch(images, batch_size)
    fewest, most = EPOCH_LIMITS
    assert fewest <= epochs <= most
    if fewest < epochs < most:
        assert abs(epochs * steps - TARGET_STEPS) <= steps / 2


def test_small_data_has_more_epochs_than_large_data() -> None:
    numbers = [epochs_for_steps(images, 32) for images in (32, 320, 640, 3200, 32_000)]
    assert numbers == sorted(numbers, reverse=True)
    assert (numbers[0], numbers[-1]) == (EPOCH_LIMITS[1], EPOCH_LIMITS[0])


def test_methods_that_see_a_source_take_about_as_many_steps_as_the_others() -> None:
    plan = make_epoch_plan(("finetune", "align", "reweight"), target=320, source=640, batch_size=32)
    assert plan.of("finetune") == plan.epochs > plan.of("align") == plan.of("reweight")
    steps = {"finetune": plan.of("finetune") * 10, "align": plan.of("align") * 30}
    assert steps["align"] == pytest.approx(steps["finetune"], rel=0.1)


def test_a_large_source_leaves_a_trial_some_epochs() -> None:
    plan = make_epoch_plan(("finetune", "align"), target=32, source=10**6, batch_size=32)
    assert plan == EpochPlan(EPOCH_LIMITS[1], {"align": MIN_SOURCE_EPOCHS}, automatic=True)


def test_the_phrase_names_the_methods_with_other_numbers() -> None:
    assert EpochPlan(1).phrase == "up to 1 epoch each"
    assert EpochPlan(20, {"align": 8, "reweight": 8}).phrase == "up to 20 epochs each (align: 8, reweight: 8)"


def test_a_single_method_has_one_number_of_epochs() -> None:
    plan = make_epoch_plan(("align",), target=320, source=320, batch_size=32)
    assert plan == EpochPlan(epochs_for_steps(640, 32), automatic=True)
    assert make_epoch_plan(("finetune", "distill"), 320, None, 32).of("distill") == epochs_for_steps(320, 32)
