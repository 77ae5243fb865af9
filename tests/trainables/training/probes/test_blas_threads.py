"""BLAS has one thread while a probe is fitted, and as many as before afterwards, whatever else runs in the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from trainables.errors import Diverged
from trainables.training.probes.blas_threads import one_blas_thread
from trainables.training.probes.logistic_regression import fit_logistic_regression

BEFORE = 2


@pytest.fixture(autouse=True)
def several_threads() -> Iterator[None]:
    """Let BLAS have several threads, also on a machine with one core."""
    with threadpool_limits(BEFORE, user_api="blas"):
        yield


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_contexts_that_overlap_leave_the_number_of_threads_as_it_was() -> None:
    first, second = one_blas_thread(), one_blas_thread()
    assert blas_threads() == {BEFORE}
    first.__enter__()
    assert blas_threads() == {1}
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas_threads() == {1}  # the second one still computes
    second.__exit__(None, None, None)
    assert blas_threads() == {BEFORE}


def test_an_error_in_a_context_ends_the_limit() -> None:
    with pytest.raises(ZeroDivisionError), one_blas_thread():
        1 / 0  # noqa: B018
    assert blas_threads() == {BEFORE}


def test_probes_that_are_fitted_at_the_same_time_are_those_of_one_after_another() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    data = [
        (random.normal(size=(90, width)) + labels[:, None]).astype(np.float32) for width in (4, 40, 300, 8)
    ]
    expected = [fit_logistic_regression(features, labels, 3).kernel for features in data]
    ready = threading.Barrier(len(data))

    def fit(features: np.ndarray) -> np.ndarray:
        ready.wait()
        return fit_logistic_regression(features, labels, 3).kernel

    for _ in range(5):
        with ThreadPoolExecutor(len(data)) as pool:
            found = list(pool.map(fit, data))
        for kernel, known in zip(found, expected, strict=True):
            # Not to the bit: the order of additions may depend on where memory was allocated.
            np.testing.assert_allclose(kernel, known, atol=1e-4)
        assert blas_threads() == {BEFORE}


def test_features_that_are_not_finite_leave_the_number_of_threads_as_it_was() -> None:
    with pytest.raises(Diverged):
        fit_logistic_regression(np.full((4, 2), np.nan), np.arange(4) % 2, 2)
    assert blas_threads() == {BEFORE}
