"""The order of the data and the learning rates are functions of the seed and the epoch."""

from __future__ import annotations

import numpy as np
import pytest

from trainables.training.schedule import batch_order, learning_rates, steps_per_epoch


@pytest.mark.parametrize(
    ("images", "batch", "steps"), [(100, 32, 4), (64, 32, 2), (5, 5, 1), (1, 1, 1), (33, 32, 2)]
)
def test_every_image_is_shown_each_epoch_in_batches_of_one_shape(images: int, batch: int, steps: int) -> None:
    indices = batch_order(images, batch, seed=7, epoch=3)
    assert indices.shape == (steps, batch) == (steps_per_epoch(images, batch), batch)
    assert set(indices.ravel()) == set(range(images))


def test_order_is_a_function_of_seed_and_epoch() -> None:
    np.testing.assert_array_equal(batch_order(50, 8, 1, 2), batch_order(50, 8, 1, 2))
    assert not np.array_equal(batch_order(50, 8, 1, 2), batch_order(50, 8, 1, 3))
    assert not np.array_equal(batch_order(50, 8, 1, 2), batch_order(50, 8, 2, 2))


def test_learning_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    rates = np.concatenate([learning_rates(0.1, epoch, 10, 7) for epoch in range(1, 11)])
    peak = int(rates.argmax())
    assert rates.shape == (70,)
    assert rates[peak] == pytest.approx(0.1)
    assert peak == 6  # a tenth of 70 steps
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()
    assert rates[0] > 0
    assert rates[-1] < 0.001


def test_a_single_step_trains_at_the_peak_rate() -> None:
    assert learning_rates(0.5, 1, 1, 1).tolist() == [0.5]
