"""McNemar's test and the bootstrap agree with independent computations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from search.records.stats.paired_tests import bootstrap_gain, mcnemar


def answers(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Return correct and wrong predictions of two models with the given counts."""
    a = np.repeat([True, True, False, False], (both, first, second, neither))
    b = np.repeat([True, False, True, False], (both, first, second, neither))
    return a, b


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 5), (5, 1), (7, 7), (10, 25), (3, 40), (200, 260)])
def test_mcnemar_is_the_binomial_test_of_the_images_that_differ(first: int, second: int) -> None:
    found = mcnemar(*answers(50, first, second, 20))
    assert (found.first_only, found.second_only) == (first, second)
    assert found.p_value == pytest.approx(binomtest(first, first + second, 0.5).pvalue)


def test_mcnemar_of_a_published_example() -> None:
    # Agresti, Categorical Data Analysis: 4 against 9 changes of mind, exact two-sided p = 0.267
    assert mcnemar(*answers(0, 4, 9, 0)).p_value == pytest.approx(0.2668, abs=1e-4)


def test_mcnemar_without_any_difference_is_not_significant() -> None:
    found = mcnemar(*answers(5, 0, 0, 5))
    assert (found.p_value, found.second_better) == (1.0, False)


def test_mcnemar_names_the_better_one() -> None:
    assert mcnemar(*answers(50, 2, 20, 5)).second_better
    assert not mcnemar(*answers(50, 20, 2, 5)).second_better
    assert not mcnemar(*answers(50, 2, 4, 5)).second_better


def test_bootstrap_of_two_constant_seeds_is_the_normal_interval_of_paired_differences() -> None:
    a, b = answers(600, 90, 60, 250)
    found = bootstrap_gain(np.stack([a, a]), np.stack([b, b]))
    difference = a.astype(float) - b
    half = norm.ppf(0.975) * difference.std() / np.sqrt(a.size)
    assert found.estimate == pytest.approx(difference.mean())
    assert (found.low, found.high) == pytest.approx(
        (found.estimate - half, found.estimate + half), abs=0.05 * half
    )


def test_bootstrap_by_patterns_is_the_bootstrap_by_images() -> None:
    random = np.random.default_rng(3)
    first, second = random.random((3, 120)) < 0.8, random.random((2, 120)) < 0.7
    found = bootstrap_gain(first, second)
    drawn = []
    for _ in range(4000):
        images = random.integers(0, 120, 120)
        means = [x[random.integers(0, len(x), len(x) - 1)][:, images].mean() for x in (first, second)]
        drawn.append(means[0] - means[1])
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_bootstrap_has_the_unbiased_variance_between_seeds() -> None:
    first = np.array([[True] * n + [False] * (20_000 - n) for n in (15_000, 16_000, 18_000)])
    second = np.ones((2, 20_000), bool)
    found = bootstrap_gain(first, second)
    half = norm.ppf(0.975) * np.std([0.75, 0.8, 0.9], ddof=1) / np.sqrt(3)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.25)  # of six values, not quite normal


def test_many_images_and_seeds_fit_into_memory() -> None:
    random = np.random.default_rng(0)
    first, second = random.random((8, 3000)) < 0.8, random.random((8, 3000)) < 0.5
    found = bootstrap_gain(first, second, resamples=1000)
    assert found.low < 0.3 < found.high


def test_the_same_predictions_give_the_same_interval() -> None:
    random = np.random.default_rng(0)
    first, second = random.random((3, 100)) < 0.8, random.random((3, 100)) < 0.8
    assert bootstrap_gain(first, second) == bootstrap_gain(first, second)


def test_different_numbers_of_images_are_refused() -> None:
    with pytest.raises(ValueError, match="same images"):
        bootstrap_gain(np.ones((3, 5), bool), np.ones((3, 6), bool))
    with pytest.raises(ValueError, match="same images"):
        mcnemar(np.ones(5, bool), np.ones(6, bool))
