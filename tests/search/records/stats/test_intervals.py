"""Intervals agree with published values and cover the truth as often as they should."""

from __future__ import annotations

import numpy as np
import pytest

from search.records.record import Interval
from search.records.stats.intervals import paired_gain, verdict, wilson


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
