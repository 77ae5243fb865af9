"""Every score against a formula or an implementation that is not ours, in the cases that break naive code, too."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from trainables.errors import DataError
from trainables.transferability import (
    h_score,
    knn_accuracy,
    label_cka,
    leep,
    linear_cka,
    logme,
    mmd_test,
    nce,
    source_probabilities,
)
from trainables.transferability.leep import most_probable
from trainables.transferability.logme import MIN_RATIO

Case = tuple[np.ndarray, np.ndarray]


def made(count: int, width: int, classes: int = 3, seed: int = 0) -> Case:
    """Features of classes that overlap."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return rng.normal(size=(classes, width))[labels] + rng.normal(size=(count, width)), labels


def identical() -> Case:
    features, labels = made(24, 6)
    features[8:] = features[:8].repeat(2, axis=0)
    return features, labels


def constant() -> Case:
    features, labels = made(30, 6)
    features[:, 2] = 7.0
    features[:, 4] = 0.0
    return features, labels


def single() -> Case:
    features, labels = made(30, 6)
    labels[11] = 3
    return features, labels


CASES: dict[str, Callable[[], Case]] = {
    "more samples than features": lambda: made(60, 5),
    "fewer samples than features": lambda: made(20, 50),
    "a class missing": lambda: (made(30, 6)[0], made(30, 6)[1] * 2),
    "identical samples": identical,
    "float16": lambda: (made(40, 8)[0].astype(np.float16), made(40, 8)[1]),
    "constant features": constant,
    "one sample of a class": single,
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def test_knn_is_scikit_learn_s_leave_one_out(case: Case) -> None:
    features, labels = case
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    directions = features.astype(np.float64) / lengths
    model = KNeighborsClassifier(1, algorithm="brute")
    told = cross_val_predict(model, directions, labels, cv=LeaveOneOut())
    if len(np.unique(np.round(directions, 9), axis=0)) == len(directions):  # else who is nearest is a tie
        assert knn_accuracy(features, labels, 1) == pytest.approx(np.mean(told == labels), abs=1e-9)
    assert knn_accuracy(features, labels) == pytest.approx(naive_knn(directions, labels, 5), abs=1e-9)


def naive_knn(directions: np.ndarray, labels: np.ndarray, neighbours: int) -> float:
    right = 0
    for row in range(len(labels)):
        others = [i for i in range(len(labels)) if i != row]
        others.sort(key=lambda i: -round(float(directions[row] @ directions[i]), 10))
        votes = [int(labels[i]) for i in others[:neighbours]]
        tally = Counter(votes)
        elected = max(votes, key=lambda c: (tally[c], -votes.index(c)))
        right += elected == labels[row]
    return right / len(labels)


def test_knn_of_a_few_samples_asks_all_others() -> None:
    features, labels = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), np.array([0, 0, 1])
    assert knn_accuracy(features, labels, 50) == pytest.approx(2 / 3)
    assert knn_accuracy(np.zeros((4, 2)), np.array([0, 0, 0, 1]), 3) == 0.75


def gaussian_evidence(features: np.ndarray, labels: np.ndarray) -> float:
    """LogME from its definition: log-densities of the labels' indicators, maximised over both precisions."""
    matrix = features.astype(np.float64)
    outer, count = matrix @ matrix.T, len(matrix)
    widest = float(np.linalg.eigvalsh(outer)[-1])
    found = []
    for label in np.unique(labels):
        y = (labels == label).astype(np.float64)

        def loss(logs: np.ndarray, y: np.ndarray = y) -> float:
            noise, ratio = np.exp(logs[0]), widest * np.exp(np.clip(logs[1], *BOUNDS))
            covariance = noise * (np.eye(count) + outer / ratio)
            return -float(multivariate_normal.logpdf(y, np.zeros(count), covariance, allow_singular=True))

        starts = product((-6.0, -2.0), np.linspace(*BOUNDS, 9))
        first = min(starts, key=lambda logs: loss(np.array(logs)))
        options = {"xatol": 1e-7, "fatol": 1e-9, "maxiter": 4000}
        ended = minimize(loss, np.array(first), method="Nelder-Mead", options=options)
        found.append(-ended.fun / count)
    return float(np.mean(found))


BOUNDS = (math.log(MIN_RATIO), -math.log(MIN_RATIO))


def test_logme_is_the_greatest_gaussian_evidence(case: Case) -> None:
    features, labels = case
    assert logme(features, labels) == pytest.approx(gaussian_evidence(features, labels), abs=1e-5)


def test_logme_does_not_rise_with_uninformative_features() -> None:
    features, labels = made(20, 10)
    padded = np.concatenate([features, np.zeros((20, 500))], axis=1)
    assert logme(padded, labels) == pytest.approx(logme(features, labels), abs=1e-6)
    noise = np.random.default_rng(1).normal(size=(200, 2048))
    assert -1.0 < logme(noise, np.arange(200) % 10) < 0.0  # without the term that is often left out: +45


def test_logme_of_exactly_determined_labels_is_finite() -> None:
    labels = np.arange(12) % 3
    exact = np.eye(3)[labels].repeat(4, axis=1)
    assert logme(exact, labels) > logme(*made(12, 12)) + 1.0
    assert math.isfinite(logme(exact, labels))
    flat = logme(np.zeros((12, 3)), labels)
    assert flat == pytest.approx(-0.5 * (math.log(2 * math.pi * (1 / 3)) + 1.0), abs=1e-9)


def test_h_score_is_that_of_scikit_learn_s_shrunk_covariance(case: Case) -> None:
    features, labels = case
    matrix = features.astype(np.float64)
    shrunk = LedoitWolf().fit(matrix)
    means = np.zeros_like(matrix)
    for label in np.unique(labels):
        means[labels == label] = matrix[labels == label].mean(axis=0)
    between = np.cov(means, rowvar=False, ddof=0)
    inverse = np.linalg.inv(shrunk.covariance_)
    expected = (1 - shrunk.shrinkage_) * np.trace(inverse @ between)
    assert h_score(features, labels) == pytest.approx(expected, abs=1e-5)


def test_h_score_of_features_without_spread_is_zero() -> None:
    assert h_score(np.full((6, 3), 0.1), np.arange(6) % 2) == 0.0
    assert h_score(np.arange(6)[:, None] % 2, np.arange(6) % 2) == pytest.approx(1.0, abs=1e-5)


def centring_cka(x: np.ndarray, y: np.ndarray) -> float:
    count = len(x)
    h = np.eye(count) - np.ones((count, count)) / count
    k, l = (h @ (m.astype(np.float64) @ m.astype(np.float64).T) @ h for m in (x, y))  # noqa: E741
    hsic = [np.trace(a @ b) / (count - 1) ** 2 for a, b in ((k, l), (k, k), (l, l))]
    return float(hsic[0] / math.sqrt(hsic[1] * hsic[2]))


def unbiased_hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """The U-statistic by its definition, a mean over all quadruples of samples."""
    quadruples = [q for q in product(range(len(k)), repeat=4) if len(set(q)) == 4]
    terms = [k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in quadruples]
    return float(np.mean(terms))


def test_cka_is_hsic_with_explicit_centring(case: Case) -> None:
    features, labels = case
    other = np.random.default_rng(3).normal(size=(len(features), 9)).astype(features.dtype)
    indicators = np.eye(int(labels.max()) + 1)[labels]
    assert linear_cka(features, other) == pytest.approx(centring_cka(features, other), abs=1e-5)
    assert label_cka(features, labels, debiased=False) == pytest.approx(
        centring_cka(features, indicators), abs=1e-5
    )
    assert linear_cka(features, 3.0 * features[:, ::-1] + 1.0) == pytest.approx(1.0, abs=1e-3)


def test_debiased_cka_is_the_u_statistic_over_all_quadruples() -> None:
    x, labels = made(8, 20)
    y = np.eye(3)[labels]
    k, l = x @ x.T, y @ y.T  # noqa: E741
    hsic = [unbiased_hsic(a, b) for a, b in ((k, l), (k, k), (l, l))]
    assert label_cka(x, labels) == pytest.approx(hsic[0] / math.sqrt(hsic[1] * hsic[2]), abs=1e-5)


def test_debiased_cka_of_noise_is_near_zero_where_the_plain_one_is_large() -> None:
    x, y = (np.random.default_rng(seed).normal(size=(40, 2000)) for seed in (0, 1))
    assert linear_cka(x, y) > 0.9
    assert abs(linear_cka(x, y, debiased=True)) < 0.1
    assert linear_cka(np.full((5, 2), 0.1), y[:5]) == 0.0


def naive_mmd(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    both = [*x, *y]
    pairs = [(i, j) for i in range(len(both)) for j in range(i)]
    h = float(np.median([np.linalg.norm(both[i] - both[j]) for i, j in pairs]))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return math.exp(-sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / (2 * h * h))

    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


def test_mmd_is_that_of_double_loops(case: Case) -> None:
    x, y = case[0][:15], case[0][15:] + np.asarray(0.5, case[0].dtype)
    found = mmd_test(x, y, permutations=50)
    assert found.squared == pytest.approx(naive_mmd(x, y), abs=1e-5)
    assert 1 / 51 <= found.p_value <= 1


def test_the_p_value_counts_permutations() -> None:
    x, _ = made(12, 4, seed=5)
    y = made(9, 4, seed=6)[0] + 0.4
    found, both = mmd_test(x, y, permutations=300, seed=2), np.concatenate([x, y])
    rng, extreme = np.random.default_rng(7), 0
    for _ in range(300):
        drawn = both[rng.permutation(21)]
        extreme += naive_mmd(drawn[:12], drawn[12:]) >= found.squared
    assert found.p_value == pytest.approx(
        (1 + extreme) / 301, abs=0.09
    )  # other draws: about 3 standard errors


def test_the_p_value_is_small_where_sets_differ_and_uniform_where_they_do_not() -> None:
    rng = np.random.default_rng(0)
    assert mmd_test(rng.normal(size=(40, 3)), rng.normal(size=(30, 3)) + 2, 200).p_value == 1 / 201
    alike = [mmd_test(rng.normal(size=(12, 3)), rng.normal(size=(10, 3)), 99).p_value for _ in range(100)]
    assert 0.35 < np.mean(alike) < 0.65
    assert np.mean(np.array(alike) <= 0.1) < 0.22


def test_mmd_of_the_same_samples_is_zero() -> None:
    x, _ = made(20, 4)
    assert mmd_test(x, x, 99).squared <= 0.0
    assert mmd_test(x, x, 99).p_value > 0.9
    same = mmd_test(np.ones((4, 2), np.float16), np.ones((3, 2)), 9)
    assert (same.squared, same.p_value) == (0.0, 1.0)
    rare = mmd_test(np.ones((9, 1)), np.array([[1.0], [1.0], [2.0]]), 99)  # a median distance of 0
    assert rare.bandwidth == 1.0


def distributions(count: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), count)


def naive_leep(theta: np.ndarray, labels: np.ndarray) -> float:
    count, total = len(theta), 0.0
    classes = sorted(set(labels.tolist()))
    joint = {
        (y, z): sum(theta[i, z] for i in range(count) if labels[i] == y) / count
        for y in classes
        for z in range(theta.shape[1])
    }
    for i in range(count):
        inside = 0.0
        for z in range(theta.shape[1]):
            mass = sum(joint[y, z] for y in classes)
            if mass > 0:
                inside += joint[labels[i], z] / mass * theta[i, z]
        total += math.log(inside)
    return total / count


@pytest.mark.parametrize("labels", [made(30, 1)[1], made(30, 1)[1] * 2, np.r_[np.arange(29) % 2, 5]])
def test_leep_is_that_of_plain_loops(labels: np.ndarray) -> None:
    theta = distributions(30, 4)
    theta[:, 1] = 0.0  # a source class that nothing resembles
    theta /= theta.sum(axis=1, keepdims=True)
    assert leep(theta, labels) == pytest.approx(naive_leep(theta, labels), abs=1e-5)
    half = theta.astype(np.float16)
    rounded = half.astype(np.float64) / half.astype(np.float64).sum(axis=1, keepdims=True)
    assert leep(half, labels) == pytest.approx(naive_leep(rounded, labels), abs=1e-5)


def test_leep_is_at_most_zero_and_zero_if_the_source_determines_the_class() -> None:
    labels = np.arange(12) % 3
    assert leep(np.eye(4)[labels], labels) == 0.0
    uniform = np.full((12, 4), 0.25)
    assert leep(uniform, labels) == pytest.approx(-math.log(3), abs=1e-9)
    assert leep(uniform, np.zeros(12, int)) == 0.0


@pytest.mark.parametrize("labels", [made(30, 1)[1], made(30, 1)[1] * 2, np.r_[np.arange(29) % 2, 5]])
def test_nce_is_mutual_information_less_entropy(labels: np.ndarray) -> None:
    source = most_probable(distributions(30, 6))
    shares = np.bincount(labels)[np.bincount(labels) > 0] / len(labels)
    entropy = -float(np.sum(shares * np.log(shares)))
    assert nce(source, labels) == pytest.approx(mutual_info_score(source, labels) - entropy, abs=1e-5)


def test_nce_of_hard_probabilities_is_leep() -> None:
    source, labels = np.arange(40) % 5, made(40, 1)[1]
    assert nce(source, labels) == pytest.approx(leep(np.eye(5)[source], labels), abs=1e-9)
    assert nce(np.array(["a", "b"] * 20), labels) <= 0.0


def test_the_source_head_is_a_logistic_regression_on_standardised_features() -> None:
    x, y = made(80, 5)
    x[:, 3] = 4.0
    target = made(30, 5, seed=1)[0].astype(np.float16)
    spread = np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    plain = LogisticRegression(tol=1e-9, max_iter=5000).fit((x - x.mean(axis=0)) / spread, y)
    expected = plain.predict_proba((target.astype(np.float64) - x.mean(axis=0)) / spread)
    np.testing.assert_allclose(source_probabilities(x, y, target), expected, atol=2e-3)


GOOD, BAD = made(12, 3)[0], made(12, 3)[0].copy()
BAD[3, 1] = np.inf
LABELS = np.arange(12) % 3
REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: logme(BAD, LABELS), "features: expected finite numbers, received 1 of 36"),
    (lambda: h_score(BAD.astype(np.float16), LABELS), "features: expected finite"),
    (lambda: knn_accuracy(GOOD, LABELS[:5]), r"labels: expected .* of shape \(12,\)"),
    (lambda: knn_accuracy(GOOD, LABELS, 0), "neighbours: expected 1 or more, received 0"),
    (lambda: logme(GOOD, np.zeros(12, int)), "labels: expected 2 classes or more, received 1"),
    (lambda: logme(GOOD[0], LABELS), r"features: expected numbers of shape \(N, D\)"),
    (lambda: h_score(np.zeros((12, 0)), LABELS), "features: expected 2 samples or more with features"),
    (lambda: h_score(GOOD, LABELS + 0.5), "labels: expected whole numbers"),
    (lambda: linear_cka(GOOD, GOOD[:9]), "second: expected as many samples as first, 12, received 9"),
    (lambda: label_cka(GOOD[:3], LABELS[:3]), "features: expected 4 samples or more"),
    (lambda: mmd_test(GOOD, GOOD[:, :2]), "target: expected 3 features as in source, received 2"),
    (lambda: mmd_test(GOOD[:1], GOOD), "source: expected 2 samples or more"),
    (lambda: leep(GOOD, LABELS), "probabilities: expected rows of numbers from 0 on that sum to 1"),
    (lambda: nce(LABELS[:4], LABELS), r"source_labels: expected .* \(12,\)"),
    (lambda: source_probabilities(GOOD, LABELS, GOOD[:, :1]), "target: expected 3 features"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_invalid_arguments_are_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        call()
