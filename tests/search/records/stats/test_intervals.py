"""Intervals agree with published values and cover the truth as often as they should."""

from __future__ import annotations

import numpy as np
import pytest
from example_records import outcome, trial

from search.records.record import Baseline, Interval, Outcome
from search.records.stats.intervals import (
    mean_accuracy,
    mean_interval,
    paired_difference,
    paired_gain,
    probe_verdict,
    verdict,
    wilson,
)


def test_wilson_matches_published_values() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I: 81/263 and 0/20, method 3
    interval = wilson(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    assert (round(wilson(0, 20).low, 4), round(wilson(0, 20).high, 4)) == (0.0, 0.1611)
    assert wilson(20, 20).high == 1.0


@pytest.mark.parametrize(("correct", "count"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_an_impossible_count(correct: int, count: int) -> None:
    with pytest.raises(ValueError, match="correct"):
        wilson(correct, count)


def simulate(
    rng: np.random.Generator, gain: float, seeds: int = 3, images: int = 800, spread: float = 0.15
) -> Interval:
    """Simulate two methods on the same images: common difficulty, seed effects, and a true gain."""
    difficulty = rng.normal(1.8, 1.0, images)

    def runs(shift: float) -> np.ndarray:
        effect = rng.normal(0, spread, (seeds, 1))
        return rng.logistic(size=(seeds, images)) < difficulty + shift + effect

    return paired_gain(runs(gain), runs(0.0))


def test_interval_covers_no_gain_at_its_level() -> None:
    rng = np.random.default_rng(0)
    wrong = sum(verdict(simulate(rng, 0.0), 3) != "no difference" for _ in range(300))
    assert wrong <= 300 * 0.08


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_interval_keeps_its_level_where_seeds_differ_more_than_images(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    found = [simulate(rng, 0.0, seeds=seeds, images=2000, spread=0.6) for _ in range(200)]
    assert sum(verdict(g, seeds) != "no difference" for g in found) <= 200 * 0.09


def test_single_training_runs_allow_no_verdict() -> None:
    rng = np.random.default_rng(2)
    found = [simulate(rng, 0.0, seeds=1, images=2000, spread=0.6) for _ in range(40)]
    assert sum(g.low > 0 or g.high < 0 for g in found) > 20  # what the images alone would have claimed
    assert {verdict(g, 1) for g in found} == {"no difference"}


def test_a_clear_gain_is_found_and_its_mirror_image_is_negative_transfer() -> None:
    rng = np.random.default_rng(1)
    found = [simulate(rng, 1.5) for _ in range(20)]
    assert {verdict(g, 3) for g in found} == {"helps"}
    mirrored = [Interval(-g.estimate, -g.high, -g.low) for g in found]
    assert {verdict(g, 3) for g in mirrored} == {"negative transfer"}


def test_seed_variance_widens_the_interval() -> None:
    calm = np.array([[True] * 90 + [False] * 10] * 3)
    wild = np.array([[True] * n + [False] * (100 - n) for n in (80, 90, 100)])
    base = np.array([[True] * 80 + [False] * 20] * 3)
    width = [g.high - g.low for g in (paired_gain(calm, base), paired_gain(wild, base))]
    assert width[1] > 2 * width[0]


def test_identical_predictions_have_no_gain_and_no_width() -> None:
    same = np.array([[True, False, True]])
    assert paired_gain(same, same) == Interval(0.0, 0.0, 0.0)


def test_different_numbers_of_images_are_refused() -> None:
    with pytest.raises(ValueError, match="same images"):
        paired_gain(np.ones((3, 5), bool), np.ones((3, 6), bool))


def test_the_interval_of_a_mean_of_equal_runs_is_that_of_a_single_one() -> None:
    row, single = np.arange(200) < 150, wilson(150, 200)
    for seeds in (1, 3):
        mean = mean_accuracy(np.stack([row] * seeds))
        assert mean.estimate == single.estimate
        assert single.low - 1e-3 < mean.low <= single.low < single.high <= mean.high < single.high + 1e-3


def test_the_interval_of_a_mean_widens_with_differences_between_seeds() -> None:
    images = np.arange(1000)
    alike, apart = (np.stack([images < n for n in counts]) for counts in ((798, 800, 802), (700, 800, 900)))
    near, far = mean_accuracy(alike), mean_accuracy(apart)
    assert near.estimate == far.estimate == pytest.approx(0.8)
    assert far.high - far.low > 3 * (near.high - near.low)
    assert 0 <= far.low < far.estimate < far.high <= 1


def test_a_mean_without_any_error_still_has_an_interval() -> None:
    interval = mean_accuracy(np.ones((3, 40), bool))
    assert interval == wilson(40, 40)
    assert interval.low < interval.estimate == interval.high == 1.0
    assert mean_accuracy(np.zeros((2, 1), bool)).high < 1


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (4,)])
def test_a_mean_of_nothing_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="not empty"):
        mean_accuracy(np.ones(shape, bool))


def test_the_interval_of_a_mean_covers_the_truth_at_its_level() -> None:
    rng = np.random.default_rng(4)

    def drawn() -> Interval:
        difficulty = rng.normal(1.5, 1.0, 300)
        return mean_accuracy(rng.logistic(size=(3, 300)) < difficulty + rng.normal(0, 0.15, (3, 1)))

    truth = np.mean(rng.logistic(size=400_000) < rng.normal(1.5, 1.0, 400_000) + rng.normal(0, 0.15, 400_000))
    found = [drawn() for _ in range(300)]
    assert sum(not i.low <= truth <= i.high for i in found) <= 300 * 0.08


def test_the_interval_of_a_mean_loss_is_around_the_mean() -> None:
    values = np.array([[0.1, 0.5, 0.9], [0.3, 0.4, 0.8]])
    interval = mean_interval(values)
    assert interval.low < interval.estimate < interval.high
    assert interval.estimate == pytest.approx(0.5)
    assert mean_interval(np.full((1, 1), 0.25)) == Interval(0.25, 0.25, 0.25)


def test_the_standard_error_of_a_paired_difference_is_that_of_the_images_for_equal_seeds() -> None:
    first, second = np.arange(100) < 70, np.arange(100) < 60
    found = paired_difference(np.stack([first] * 2), np.stack([second] * 2))
    difference = first.astype(float) - second
    assert found.estimate == pytest.approx(0.1)
    assert found.standard_error == pytest.approx(difference.std(ddof=1) / 10)


def probed(gain: Interval | None, seeds: int = 2, won: bool = False) -> Outcome:
    runs = (0.9,) * seeds
    return outcome(
        trial(0),
        probe=Baseline("probe", {}, 1, runs),
        seed_test_accuracies=runs,
        probe_gain=gain,
        probe_won=won,
    )


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        (outcome(trial(0)), None),
        (probed(None, won=True), "enough"),
        (probed(Interval(0.03, 0.01, 0.05)), "helps"),
        (probed(Interval(0.03, -0.01, 0.05)), "no difference"),
        (probed(Interval(-0.03, -0.05, -0.01)), "worse"),
        (probed(Interval(0.03, 0.01, 0.05), seeds=1), "no difference"),
    ],
    ids=["no probe", "won", "better", "unclear", "worse", "one seed"],
)
def test_verdict_on_the_probe(known: Outcome, wanted: str | None) -> None:
    assert probe_verdict(known) == wanted
