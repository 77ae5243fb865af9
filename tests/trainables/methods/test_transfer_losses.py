"""Losses and weights of instance and feature transfer against independent formulas."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import minimize

from trainables.methods.align import alignment_ramp
from trainables.methods.domain_losses import (
    DISCRIMINATOR_SHAPES,
    MMD_BANDWIDTHS,
    adversarial_loss,
    coral,
    initial_discriminator,
    mmd,
    reverse_gradient,
)
from trainables.methods.importance_weights import (
    importance_weights,
    kmm_problem,
    kmm_weights,
    log_ratios,
    median_gamma,
    solve_kmm,
    standardised,
    temper_weights,
)
from trainables.methods.reweight import tradaboost_beta, tradaboost_weights
from trainables.methods.unlabelled_selection import missing_information

GENERATOR = np.random.default_rng(3)


def sample(n: int, d: int, shift: float = 0.0) -> np.ndarray:
    return (GENERATOR.normal(size=(n, d)) + shift).astype(np.float32)


CASES = {
    "plain": (sample(20, 6), sample(15, 6, 0.5)),
    "fewer images than features": (sample(5, 40), sample(4, 40, 1.0)),
    "identical": ((same := sample(9, 5)), same),
    "constant": (np.full((6, 3), 2.5, np.float32), np.full((7, 3), 2.5, np.float32)),
    "one constant feature": (np.c_[sample(8, 3), np.ones(8)], np.c_[sample(9, 3), np.ones(9)]),
    "float16": (sample(12, 7).astype(np.float16), sample(13, 7, 0.3).astype(np.float16)),
    "far from the origin": (sample(10, 4) + 300, sample(10, 4) + 301),
    "a single image": (sample(1, 4), sample(3, 4)),
}
cases = pytest.mark.parametrize(("source", "target"), CASES.values(), ids=CASES)


def tensors(*arrays: np.ndarray) -> list[tf.Tensor]:
    return [tf.constant(a.astype(np.float32)) for a in arrays]


@cases
def test_coral_matches_the_distance_of_covariances(source: np.ndarray, target: np.ndarray) -> None:
    d = source.shape[1]
    s, t = source.astype(np.float64), target.astype(np.float64)
    covariances = [np.cov(x, rowvar=False) if len(x) > 1 else np.zeros((d, d)) for x in (s, t)]
    expected = np.linalg.norm(covariances[0] - covariances[1], "fro") ** 2 / (4 * d**2)
    assert float(coral(*tensors(source, target))) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@cases
def test_mmd_matches_the_sum_over_all_pairs(source: np.ndarray, target: np.ndarray) -> None:
    s, t = source.astype(np.float64), target.astype(np.float64)
    rows = np.concatenate([s, t])
    pairs = list(itertools.combinations(rows, 2))
    scale = max(float(np.mean([np.sum((a - b) ** 2) for a, b in pairs])), 1e-12)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([math.exp(-np.sum((a - b) ** 2) / (m * scale)) for m in MMD_BANDWIDTHS]))

    def mean(left: np.ndarray, right: np.ndarray) -> float:
        return float(np.mean([k(a, b) for a in left for b in right]))

    expected = mean(s, s) + mean(t, t) - 2 * mean(s, t)
    assert float(mmd(*tensors(source, target))) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("distance", [coral, mmd])
@pytest.mark.parametrize("case", ["identical", "constant"])
def test_equal_samples_have_distance_0_and_finite_gradients(distance, case: str) -> None:  # type: ignore[no-untyped-def]
    source, target = tensors(*CASES[case])
    with tf.GradientTape() as tape:
        tape.watch(source)
        loss = distance(source, target)
    assert float(loss) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(tape.gradient(loss, source).numpy()).all()


def test_a_reversed_gradient_is_the_negative_one_times_its_strength() -> None:
    x = tf.constant([[1.0, -2.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(tf.square(reverse_gradient(x, tf.constant(0.3))))
    assert float(y) == 5
    np.testing.assert_allclose(tape.gradient(y, x), [[-0.6, 1.2]], rtol=1e-6)


@cases
def test_the_adversarial_loss_matches_the_cross_entropy_of_the_domains(
    source: np.ndarray, target: np.ndarray
) -> None:
    weights = initial_discriminator(source.shape[1], seed=4)
    assert [w.shape for w in weights] == [
        tuple(n or source.shape[1] for n in s) for s in DISCRIMINATOR_SHAPES
    ]
    variables = [tf.Variable(w) for w in weights]

    def chance(x: np.ndarray) -> np.ndarray:
        hidden = np.maximum(x.astype(np.float64) @ weights[0] + weights[1], 0)
        return 1 / (1 + np.exp(-(hidden @ weights[2] + weights[3])[:, 0]))

    expected = -0.5 * (np.log(chance(source)).mean() + np.log1p(-chance(target)).mean())
    strength = tf.constant(0.7)
    x = tensors(source, target)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        loss = adversarial_loss(*x, variables, strength)
        plain = adversarial_loss(*x, variables, tf.constant(-1.0))
    assert float(loss) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    for mine, true in zip(tape.gradient(loss, x), tape.gradient(plain, x), strict=True):
        np.testing.assert_allclose(mine, -0.7 * true, rtol=1e-4, atol=1e-7)
    for mine, true in zip(tape.gradient(loss, variables), tape.gradient(plain, variables), strict=True):
        np.testing.assert_allclose(mine, true)


def test_the_alignment_ramp_matches_the_paper() -> None:
    found = alignment_ramp(2.0, np.array([0, 50, 99]), 100)
    expected = [2 * (2 / (1 + math.exp(-10 * p)) - 1) for p in (0, 0.5, 0.99)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_log_ratios_find_the_true_ratio_of_two_gaussians() -> None:
    source, target = sample(4000, 2), sample(2000, 2, 0.6)
    true = (source * 0.6).sum(axis=1) - 0.36  # log N(x; 0.6, 1) - log N(x; 0, 1), summed over both features
    found = log_ratios(source, target)
    assert np.abs(found - true).mean() < 0.1
    assert np.exp(found).mean() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("case", ["identical", "constant"])
def test_samples_that_do_not_differ_have_ratio_one(case: str) -> None:
    source, target = CASES[case]
    np.testing.assert_allclose(log_ratios(source, target), 0, atol=1e-5)


@cases
def test_log_ratios_are_finite_for_degenerate_samples(source: np.ndarray, target: np.ndarray) -> None:
    found = log_ratios(source, target)
    assert found.shape == (len(source),)
    assert np.isfinite(found).all()


def test_log_ratios_judge_images_that_the_classifier_has_not_seen() -> None:
    """With fewer images than features, a classifier separates the images that it has seen even if domains are equal."""
    found = log_ratios(sample(40, 200), sample(40, 200))
    assert abs(found.mean()) < 1.5


@pytest.mark.parametrize(("temperature", "clip"), [(1.0, 100.0), (2.0, 100.0), (0.5, 1.5)])
def test_importance_weights_are_normalised_powers_of_the_ratio(temperature: float, clip: float) -> None:
    ratios = np.array([-1.0, 0.0, 0.5, 2.0])
    powers = np.exp(ratios) ** (1 / temperature)
    cut = np.minimum(powers / powers.mean(), clip)
    found = importance_weights(ratios, temperature, clip)
    np.testing.assert_allclose(found, cut / cut.mean(), rtol=1e-9)
    assert found.mean() == pytest.approx(1)
    np.testing.assert_allclose(temper_weights(np.exp(ratios), temperature, clip), found, rtol=1e-9)


def test_extreme_ratios_and_zero_weights_give_finite_weights() -> None:
    assert np.isfinite(importance_weights(np.array([-2000.0, 0.0, 3000.0]), 1.0, 5.0)).all()
    np.testing.assert_array_equal(temper_weights(np.zeros(4), 1.0, 5.0), np.ones(4))


@pytest.mark.parametrize("bound", [1.5, 1000.0])
@pytest.mark.parametrize("case", ["plain", "fewer images than features", "one constant feature", "float16"])
def test_kernel_mean_matching_solves_its_quadratic_program(case: str, bound: float) -> None:
    source, target = standardised(*CASES[case])
    kernel, kappa = kmm_problem(source, target, median_gamma(source, target))
    n, slack = len(kappa), (math.sqrt(len(kappa)) - 1) / math.sqrt(len(kappa))
    other = minimize(
        lambda w: 0.5 * w @ kernel @ w - kappa @ w,
        np.full(n, min(1.0, bound)),
        jac=lambda w: kernel @ w - kappa,
        bounds=[(0, bound)] * n,
        constraints=[
            {"type": "ineq", "fun": lambda w: n * (1 + slack) - w.sum(), "jac": lambda w: -np.ones(n)},
            {"type": "ineq", "fun": lambda w: w.sum() - n * (1 - slack), "jac": lambda w: np.ones(n)},
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 2000},
    )
    found = solve_kmm(kernel, kappa, bound)
    assert found.min() >= 0
    assert found.max() <= bound
    assert abs(found.sum() - n) <= n * slack + 1e-5
    assert 0.5 * found @ kernel @ found - kappa @ found == pytest.approx(other.fun, abs=1e-5)
    np.testing.assert_allclose(found, other.x, atol=1e-3)


def test_kernel_mean_matching_gives_most_weight_to_images_like_the_target() -> None:
    source, target = sample(700, 2), sample(200, 2, 1.0)  # two blocks
    weights = kmm_weights(source, target, clip=20.0)
    likeness = source.sum(axis=1)
    assert np.corrcoef(weights, likeness)[0, 1] > 0.2
    weighted = np.average(source, axis=0, weights=weights)
    assert np.linalg.norm(weighted - target.mean(axis=0)) < 0.3 * np.linalg.norm(
        source.mean(axis=0) - target.mean(axis=0)
    )
    np.testing.assert_array_equal(kmm_weights(source, target, clip=20.0), weights)


@pytest.mark.parametrize("case", ["identical", "constant", "a single image"])
def test_kernel_mean_matching_survives_samples_without_information(case: str) -> None:
    weights = kmm_weights(*CASES[case], clip=10.0)
    assert np.isfinite(weights).all()
    assert weights.sum() > 0


def test_tradaboost_beta_matches_the_paper() -> None:
    beta = tradaboost_beta(100, 20)
    assert beta == pytest.approx(1 / (1 + math.sqrt(2 * math.log(100) / 20)))
    found = tradaboost_weights(np.ones(3), np.array([0.0, 0.5, 1.0]), beta)
    np.testing.assert_allclose(found, [1, math.sqrt(beta), beta])


def test_confident_predictions_of_all_classes_miss_no_information() -> None:
    sure = np.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]]
    assert missing_information(sure) == pytest.approx(0, abs=1e-9)
    assert missing_information(np.full((5, 4), 0.25)) == pytest.approx(math.log(4))
    assert missing_information(np.eye(4)[[2] * 6]) == pytest.approx(math.log(4))  # one class for all
