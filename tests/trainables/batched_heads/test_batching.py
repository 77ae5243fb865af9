"""Tests of the queue that collects requests of several threads into batches."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from trainables.batched_heads.batching import BatchQueue


class Doubler:
    """Doubles numbers; the first batch runs until ``go_on`` is set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(numbers))
        if len(self.batches) == 1:
            self.begun.set()
            self.go_on.wait(10)
        if 666 in numbers:
            raise RuntimeError("666 spoils its batch")
        return [ValueError(f"{n} is negative") if n < 0 else 2 * n for n in numbers]


def submit_all(numbers: list[int], most: int = 32) -> tuple[Doubler, list[int | BaseException]]:
    """Submit the first number, the others while the first is running, and wait for all results."""
    doubler = Doubler()
    queue = BatchQueue[int, int](doubler, most)
    with ThreadPoolExecutor(len(numbers)) as pool:
        futures = [pool.submit(queue.submit, numbers[0])]
        assert doubler.begun.wait(10)
        futures += [pool.submit(queue.submit, n) for n in numbers[1:]]
        while len(queue) < len(numbers) - 1:
            threading.Event().wait(0.001)
        doubler.go_on.set()
        return doubler, [f.exception() or f.result() for f in futures]


def test_a_lone_request_runs_at_once() -> None:
    doubler = Doubler()
    doubler.go_on.set()
    queue = BatchQueue[int, int](doubler, 8)
    assert [queue.submit(n) for n in (1, 2, 3)] == [2, 4, 6]
    assert doubler.batches == [[1], [2], [3]]


def test_requests_during_a_batch_form_the_next_batch() -> None:
    doubler, results = submit_all(list(range(20)))
    assert results == [2 * n for n in range(20)]
    assert [len(b) for b in doubler.batches] == [1, 19]


def test_batches_are_bounded_in_size() -> None:
    doubler, results = submit_all(list(range(12)), most=4)
    assert results == [2 * n for n in range(12)]
    assert [len(b) for b in doubler.batches] == [1, 4, 4, 3]


def test_an_error_of_one_request_is_raised_to_its_caller_alone() -> None:
    _, results = submit_all([1, -2, 3])
    assert (results[0], results[2]) == (2, 6)
    assert str(results[1]) == "-2 is negative"


def test_a_failed_batch_raises_to_all_callers_and_the_next_batch_runs() -> None:
    doubler, results = submit_all([666, 1, 2])
    assert isinstance(results[0], RuntimeError)
    assert results[1:] == [2, 4]
    queue = BatchQueue[int, int](doubler, 8)
    with pytest.raises(RuntimeError, match="666 spoils"):
        queue.submit(666)
    assert queue.submit(4) == 8
