"""The calibration error agrees with a plain computation, and its interval and chance level have their coverage."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest

from search.records.record import Calibration
from search.records.stats.calibration import calibration_of


def told(images: int, off: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, and predictions that are correct less often by ``off`` than the probabilities say."""
    random = np.random.default_rng(seed)
    sure = random.beta(6, 2, images)
    return sure.astype(np.float32), random.random(images) < np.clip(sure - off, 0, 1)


def measured(images: int, off: float, seed: int = 0) -> Calibration:
    sure, right = told(images, off, seed)
    return calibration_of(sure, right, sure)


def test_calibration_equals_a_plain_loop_over_the_images() -> None:
    sure, right = told(700, 0.1)
    sure[:3] = (0.1, 1.0, 0.3)  # on the edges, which belong to the lower bin
    truth = np.where(right, sure, (1 - sure) / 3 + 0.001)
    known = calibration_of(sure, right, truth)
    bins: dict[int, list[int]] = {}
    for image, probability in enumerate(sure.astype(float)):
        place = next(b for b in range(10) if probability <= (b + 1) / 10)
        bins.setdefault(place, []).append(image)
    error = 0.0
    for shown, (place, images) in zip(known.bins, sorted(bins.items()), strict=True):
        certain = sum(float(sure[i]) for i in images) / len(images)
        accuracy = sum(bool(right[i]) for i in images) / len(images)
        error += len(images) / len(sure) * abs(certain - accuracy)
        assert (shown.low, shown.high) == (place / 10, (place + 1) / 10)
        assert (shown.images, shown.certain) == (len(images), pytest.approx(certain))
        assert shown.accuracy.estimate == pytest.approx(accuracy)
        assert shown.accuracy.low <= accuracy <= shown.accuracy.high
    assert known.error.estimate == pytest.approx(error, abs=1e-9)
    assert known.excess.estimate == pytest.approx(float(np.mean(sure)) - float(np.mean(right)), abs=1e-6)
    assert known.log_loss == pytest.approx(-sum(math.log(float(t)) for t in truth) / len(truth), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("off", [0.1, -0.1])
def test_the_interval_covers_the_true_error_and_the_excess_has_the_right_sign(off: float) -> None:
    sure, _ = told(200_000, off, seed=9)
    truth = float(np.abs(sure - np.clip(sure - off, 0, 1)).mean())
    found = [measured(400, off, seed) for seed in range(40)]
    covered = sum(known.error.low <= truth <= known.error.high for known in found)
    assert covered >= 33  # 38 of 40 on average
    assert all(known.error.low <= known.error.estimate <= known.error.high for known in found)
    signs = [np.sign(known.excess.low) + np.sign(known.excess.high) for known in found]
    assert np.mean([sign == 2 * np.sign(off) for sign in signs]) > 0.9
    assert np.mean([known.error.estimate > known.by_chance for known in found]) > 0.9


@pytest.mark.slow
def test_the_error_of_a_calibrated_model_is_rarely_above_chance() -> None:
    found = [measured(300, 0.0, seed) for seed in range(60)]
    assert sum(known.error.estimate > known.by_chance for known in found) <= 9  # 3 on average
    assert sum(known.excess.low > 0 or known.excess.high < 0 for known in found) <= 9
    assert sum(known.error.low > 0.03 for known in found) <= 9


def test_more_images_narrow_all_intervals() -> None:
    few, many = measured(100, 0.1), measured(20_000, 0.1)
    for name in ("error", "excess"):
        narrow, wide = getattr(many, name), getattr(few, name)
        assert narrow.high - narrow.low < 0.3 * (wide.high - wide.low)
    assert many.by_chance < 0.3 * few.by_chance


def test_confident_correct_predictions_are_calibrated_and_confident_wrong_ones_are_not() -> None:
    ones, nones = np.ones(5), np.zeros(5)
    perfect = calibration_of(ones, np.ones(5, bool), ones)
    assert (perfect.error.estimate, perfect.by_chance, perfect.log_loss) == (0, 0, 0)
    assert [b.images for b in perfect.bins] == [5]
    wrong = calibration_of(ones, np.zeros(5, bool), nones)
    assert wrong.error.estimate == wrong.excess.estimate == 1
    assert np.isfinite(wrong.log_loss)


def test_the_same_predictions_give_the_same_calibration() -> None:
    assert asdict(measured(50, 0.1)) == asdict(measured(50, 0.1))


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected three arrays.*\(3,\), \(2,\) and \(3,\)"):
        calibration_of(np.ones(3), np.ones(2, bool), np.ones(3))
    with pytest.raises(ValueError, match="N > 0"):
        calibration_of(np.ones(0), np.ones(0, bool), np.ones(0))
