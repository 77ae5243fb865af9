"""Collects epochs of trials that only train heads into batches, so that one compiled step trains many heads.

A head on kept activations trains so fast that most of its time is the dispatch of operations. A batch of heads
dispatches each of them once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from trainables.batched_heads.fused import FusedHeads
from trainables.batched_heads.state import HeadEpoch, HeadShape, HeadState
from trainables.tracing import BUILD_LOCK

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")


MAX_HEADS = 32
"""Largest number of heads in a batch. Larger batches gain nothing, and their memory grows."""


@dataclass(eq=False)
class BatchRequest(Generic[RequestT, ResultT]):
    """One call that waits in a :class:`BatchQueue`.

    Attributes:
        request: what the caller submitted.
        is_leader: whether the caller's thread runs the next batch.
        ready: set when the caller can go on: with a result or an error, or as the leader of the next batch.
        result: set unless there is an error.
        error: raised to the caller.
    """

    request: RequestT
    is_leader: bool = False
    ready: threading.Event = field(default_factory=threading.Event)
    result: ResultT | None = None
    error: BaseException | None = None


class BatchQueue(Generic[RequestT, ResultT]):
    """Makes batches of the requests of several threads, without waiting for a batch to fill.

    A request that arrives while no batch runs is processed at once and alone. Those that arrive while a batch runs
    wait, and the first of them then runs all of them as the next batch. So batches grow with the load, and a lone trial
    never waits. There is no thread of the queue's own: the calling threads run the batches.

    The invariant: ``_busy`` is set exactly while one thread is the leader (or inside :meth:`paused`), and only the
    leader's thread clears it or appoints the next leader (:meth:`_hand_over`). Both happen under the lock, as does
    joining the queue; so no request can join after the last leader has found the queue empty, and wait for ever.

    Args:
        run_batch: processes a batch; it returns one result a request, or an exception in the place of a result, which
            is then raised to that caller.
        max_size: largest number of requests in a batch.
    """

    def __init__(
        self, run_batch: Callable[[Sequence[RequestT]], Sequence[ResultT | Exception]], max_size: int
    ) -> None:
        self._run_batch, self._max_size = run_batch, max_size
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: deque[BatchRequest[RequestT, ResultT]] = deque()

    def __len__(self) -> int:
        """Return how many requests wait now."""
        return len(self._waiting)

    def submit(self, request: RequestT) -> ResultT:
        """Return the result of ``request``, or raise the error of processing it."""
        mine = BatchRequest[RequestT, ResultT](request)
        with self._lock:
            if self._busy:
                self._waiting.append(mine)
            else:
                self._busy = mine.is_leader = True
        if not mine.is_leader:
            mine.ready.wait()
        if mine.is_leader:  # at once, or appointed by the last leader while waiting
            self._run_leader(mine)
        if mine.error is not None:
            raise mine.error
        return mine.result  # type: ignore[return-value]  # set unless there is an error

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Process nothing inside the block; requests that arrive meanwhile form the next batches.

        Raises:
            RuntimeError: a batch is running.
        """
        with self._lock:
            if self._busy:
                raise RuntimeError("queue: expected no running batch, received one")
            self._busy = True
        try:
            yield
        finally:
            self._hand_over()

    def _run_leader(self, mine: BatchRequest[RequestT, ResultT]) -> None:
        """Run ``mine`` and the requests that wait as one batch."""
        with self._lock:
            others = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_size - 1))]
        batch = [mine, *others]
        try:
            results = self._run_batch([each.request for each in batch])
            for each, result in zip(batch, results, strict=True):
                each.result, each.error = (None, result) if isinstance(result, Exception) else (result, None)
        except BaseException as error:  # noqa: BLE001 - raised to each caller
            for each in batch:
                each.error = error
        finally:
            # The next batch is started before the callers of this one wake up: the device does not idle meanwhile.
            self._hand_over()
            for each in others:
                each.ready.set()

    def _hand_over(self) -> None:
        """Make the first waiting request the leader of the next batch; without one, no batch runs any longer."""
        with self._lock:
            if not self._waiting:
                self._busy = False
                return
            leader = self._waiting.popleft()
            leader.is_leader = True
        leader.ready.set()


@dataclass(frozen=True)
class HeadEpochRequest:
    """An epoch of one trial: what to train, and what to evaluate after it.

    Attributes:
        epoch: the training.
        validation: activations of the N validation images, in chunks (n, C).
        labels: (N,) int32, of the validation images.
    """

    epoch: HeadEpoch
    validation: Sequence[np.ndarray]
    labels: np.ndarray


@dataclass(frozen=True)
class HeadEpochResult:
    """The result of one epoch of one trial.

    Attributes:
        state: the head and its optimizer after the epoch.
        loss: sum of the steps' mean losses.
        val_loss: mean cross-entropy of a validation image.
        val_accuracy: share of correct predictions, in [0, 1].
        train_seconds: this trial's share of the time that the batch trained.
        evaluate_seconds: its share of the time that the batch was evaluated.
        batch_size: number of trials in the batch.
    """

    state: HeadState
    loss: float
    val_loss: float
    val_accuracy: float
    train_seconds: float
    evaluate_seconds: float
    batch_size: int = 1


class HeadBatcher:
    """Runs epochs of heads of one shape; epochs that wait at the same time become one batch.

    All trials of a batcher belong to one workbench, so they have the same validation images and equally many steps.

    Attributes:
        shape: of the heads.
        fused: the compiled training and evaluation.
        queue: where epochs wait while a batch runs.
        batches: how many batches there were of each size.
    """

    def __init__(self, shape: HeadShape) -> None:
        self.shape = shape
        self.batches: dict[int, int] = {}
        self.fused = FusedHeads(shape)
        self._traced = set[tuple[str, bool]]()
        self.queue = BatchQueue[HeadEpochRequest, HeadEpochResult](self._run_batch, MAX_HEADS)

    def compile(self, dtype: str, train: bool = True) -> float:
        """Trace for activations of ``dtype`` unless that is done, and return the seconds that it took.

        Args:
            dtype: of the activations.
            train: trace training, too; otherwise evaluation alone.
        """
        with BUILD_LOCK:
            if {(dtype, True), (dtype, train)} & self._traced:
                return 0.0
            began = time.perf_counter()
            self.fused.compile(dtype, train)
            self._traced.add((dtype, train))
            return time.perf_counter() - began

    def run(self, request: HeadEpochRequest) -> HeadEpochResult:
        """Train and evaluate one epoch of one trial, in one batch with others that wait; raise its error."""
        return self.queue.submit(request)

    def _run_batch(self, requests: Sequence[HeadEpochRequest]) -> list[HeadEpochResult | Exception]:
        """Run one batch.

        If it fails, most likely for lack of memory, run each trial alone, with an error of its own.
        """
        try:
            results: list[HeadEpochResult | Exception] = [*self._train_and_evaluate(requests)]
        except Exception as error:  # noqa: BLE001 - raised to the trial that it belongs to
            if len(requests) == 1:
                return [error]
            return [self._run_batch([request])[0] for request in requests]
        self.batches[len(requests)] = self.batches.get(len(requests), 0) + 1
        return results

    def _train_and_evaluate(self, requests: Sequence[HeadEpochRequest]) -> list[HeadEpochResult]:
        share = 1.0 / len(requests)
        began = time.perf_counter()
        trained = self.fused.train([request.epoch for request in requests])
        between = time.perf_counter()
        # The validation images are the same for all trials of the batch: those of the first serve for all.
        losses, correct = self._evaluate([state.weights for _, state in trained], requests[0])
        seconds = (between - began) * share, (time.perf_counter() - between) * share
        count = len(requests[0].labels)
        return [
            HeadEpochResult(
                state, loss, float(losses[i]) / count, int(correct[i]) / count, *seconds, len(requests)
            )
            for i, (loss, state) in enumerate(trained)
        ]

    def _evaluate(
        self, weights: list[list[np.ndarray]], request: HeadEpochRequest
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the summed cross-entropy and the number of correct predictions of each head, both (T,)."""
        losses, correct, seen = np.zeros(len(weights)), np.zeros(len(weights), np.int64), 0
        for chunk in request.validation:
            loss, right, _ = self.fused.evaluate(weights, chunk, request.labels[seen : seen + len(chunk)])
            losses, correct, seen = losses + loss, correct + right, seen + len(chunk)
        return losses, correct
