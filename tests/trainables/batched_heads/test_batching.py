from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from trainables.batched_heads.batching import BatchQueue


class Doubler:
    """Doubles numbers; the first batch lasts until ``go_on``."""

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


def asked(numbers: list[int], most: int = 32) -> tuple[Doubler, list[int | BaseException]]:
    """Ask for the first number, for all others while the first is at work, and wait."""
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
    doubler, answers = asked(list(range(20)))
    assert answers == [2 * n for n in range(20)]
    assert [len(b) for b in doubler.batches] == [1, 19]


def test_batches_are_bounded_in_size() -> None:
    doubler, answers = asked(list(range(12)), most=4)
    assert answers == [2 * n for n in range(12)]
    assert [len(b) for b in doubler.batches] == [1, 4, 4, 3]


def test_an_error_of_one_request_is_raised_to_its_caller_alone() -> None:
    _, answers = asked([1, -2, 3])
    assert (answers[0], answers[2]) == (2, 6)
    assert str(answers[1]) == "-2 is negative"


def test_a_failed_batch_raises_to_all_callers_and_the_next_batch_runs() -> None:
    doubler, answers = asked([666, 1, 2])
    assert isinstance(answers[0], RuntimeError)
    assert answers[1:] == [2, 4]
    queue = BatchQueue[int, int](doubler, 8)
    with pytest.raises(RuntimeError, match="666 spoils"):
        queue.submit(666)
    assert queue.submit(4) == 8
