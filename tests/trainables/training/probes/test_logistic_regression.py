"""Test the logistic regression of the frozen probe against scikit-learn, and on data that break such fits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from trainables.errors import Diverged
from trainables.training.probes import logistic_regression
from trainables.training.probes.logistic_regression import (
    DEFAULT_PENALTY,
    PENALTIES,
    FittedRegression,
    fit_logistic_regression,
    fold_numbers,
)


def blobs(count: int, width: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, C) of unequal scales around a centre for each class, and labels (N,) of all classes."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    labels = np.arange(count) % classes
    x = centres[labels] + 0.9 * random.normal(size=(count, width))
    return (x * np.linspace(0.1, 20, width) + 3).astype(np.float32), labels


def probabilities(fitted: FittedRegression, features: np.ndarray) -> np.ndarray:
    scores = features @ fitted.kernel + fitted.bias
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("count", "width", "classes"), [(90, 6, 3), (40, 60, 4), (60, 5, 2)])
def test_the_solution_is_that_of_scikit_learn(
    count: int, width: int, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic_regression, "TOLERANCE", 1e-6)
    monkeypatch.setattr(logistic_regression, "RELATIVE_PRECISION", 1e-12)
    x, y = blobs(count, width, classes)
    found = fit_logistic_regression(x, y, classes)
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    # With two classes scikit-learn has one row, whose norm is that of both of ours times the root of two.
    strength = (2 if classes == 2 else 1) / (found.penalty * count)
    reference = LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(standard.astype(np.float64), y)
    assert probabilities(found, x) == pytest.approx(reference.predict_proba(standard), abs=5e-3)
    assert found.kernel.dtype == found.bias.dtype == np.float32
    assert found.kernel.shape == (width, classes)


def test_the_penalty_is_the_best_one_in_cross_validation_and_noise_is_penalised() -> None:
    x, y = blobs(120, 8, 3)
    found = fit_logistic_regression(x, y, 3)
    assert found.penalty == min(found.scores, key=lambda score: score.loss).penalty
    assert [score.penalty for score in found.scores] == list(PENALTIES[: len(found.scores)])
    assert found.best is not None
    assert found.best.accuracy > 0.8
    noise = np.random.default_rng(3).normal(size=(120, 40))
    assert fit_logistic_regression(noise, y, 3).penalty > found.penalty
    other, truth = blobs(300, 8, 3, seed=1)
    assert (probabilities(found, other).argmax(axis=1) == truth).mean() > 0.8


def test_the_same_data_give_the_same_bits() -> None:
    x, y = blobs(80, 20, 4)
    first, second = (fit_logistic_regression(x, y, 4, (x + 1,)) for _ in range(2))
    np.testing.assert_array_equal(first.kernel, second.kernel)
    assert first.scores == second.scores


def test_views_are_learned_from_but_not_judged_by() -> None:
    x, y = blobs(60, 10, 3)
    misleading = np.roll(x, 1, axis=0)
    plain, helped, misled = (
        fit_logistic_regression(x, y, 3, views) for views in ((), (x + 0.1,), (misleading, misleading))
    )
    assert plain.best is not None
    assert helped.best is not None
    assert misled.best is not None
    assert helped.best.loss == pytest.approx(plain.best.loss, rel=0.2)
    assert misled.best.loss > plain.best.loss


def test_classes_with_one_image_and_with_none_are_fitted() -> None:
    x, y = blobs(41, 6, 3)
    labels = np.where(y == 2, 4, y)
    labels[0] = 3
    found = fit_logistic_regression(x, labels, 6)
    assert np.isfinite(found.kernel).all()
    predicted = probabilities(found, x)
    assert not set(predicted.argmax(axis=1)) & {2, 5}
    assert (predicted[:, [2, 5]] > 0).all()
    assert found.best is not None


@pytest.mark.parametrize(("labels", "classes"), [([0, 1, 2, 3], 4), ([0], 2), ([1, 1, 1], 2)])
def test_without_two_images_of_two_classes_there_is_no_cross_validation(
    labels: list[int], classes: int
) -> None:
    x = np.random.default_rng(0).normal(size=(len(labels), 9))
    found = fit_logistic_regression(x, np.array(labels), classes)
    assert (found.penalty, found.best, found.scores) == (DEFAULT_PENALTY, None, ())
    assert (probabilities(found, x).argmax(axis=1) == labels).all()


def test_constant_features_have_no_weight_and_rare_ones_no_large_one() -> None:
    x, y = blobs(60, 5, 3)
    rare = np.zeros(60)
    rare[7] = 1e-6
    wide = np.column_stack([x, np.full(60, 7.0), rare])
    found = fit_logistic_regression(wide, y, 3)
    assert np.abs(found.kernel[5]).max() < 1e-6
    assert np.abs(found.kernel[6] * 1e-6).max() < 1e-2
    constant = fit_logistic_regression(np.ones((60, 4)), y, 3)
    assert probabilities(constant, np.ones((1, 4))) == pytest.approx(np.full((1, 3), 1 / 3), abs=0.02)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_a_divergence(bad: float) -> None:
    x, y = blobs(20, 3, 2)
    x[4, 1] = bad
    with pytest.raises(Diverged, match="finite"):
        fit_logistic_regression(x, y, 2)


@pytest.mark.parametrize(("count", "classes", "folds"), [(20, 3, 5), (7, 7, 5), (3, 2, 3), (100, 40, 5)])
def test_folds_are_of_equal_size_in_all_and_in_each_class(count: int, classes: int, folds: int) -> None:
    labels = np.arange(count) % classes
    numbers = fold_numbers(labels, folds)
    for chosen in (np.ones(count, bool), *(labels == label for label in range(classes))):
        sizes = np.bincount(numbers[chosen], minlength=folds)
        assert sizes.max() - sizes.min() <= 1


def test_large_data_is_compared_on_a_sample_with_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic_regression, "MAX_WORK", 5e6)
    x, y = blobs(600, 20, 12)
    data = logistic_regression._Data.of(x, y, ())
    sampled, folds = logistic_regression._plan(data)
    assert folds == logistic_regression.MIN_FOLDS
    assert 24 <= len(sampled) < 300
    assert set(y[sampled]) == set(range(12))
    assert max(np.bincount(y[sampled])) - min(np.bincount(y[sampled])) <= 1
    assert (probabilities(fit_logistic_regression(x, y, 12), x).argmax(axis=1) == y).mean() > 0.9


def test_more_features_than_the_search_looks_at_are_all_used(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = blobs(80, 30, 4)
    whole = fit_logistic_regression(x, y, 4)
    monkeypatch.setattr(logistic_regression, "SEARCH_WIDTH", 3)
    narrow = fit_logistic_regression(x, y, 4)
    for one, other in itertools.pairwise([whole, narrow]):
        agree = probabilities(one, x).argmax(axis=1) == probabilities(other, x).argmax(axis=1)
        assert agree.mean() > 0.9
