"""Trials that only train heads, an epoch at a time, as many together as wait.

Calls that come while another one runs are answered together by the next.
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


@dataclass(eq=False)
class BatchRequest(Generic[RequestT, ResultT]):
    """One call: its question, and its answer or error once ``ready`` is set. Who ``leads`` answers for others too."""

    question: RequestT
    leads: bool = False
    ready: threading.Event = field(default_factory=threading.Event)
    answer: ResultT | None = None
    error: BaseException | None = None


class BatchQueue(Generic[RequestT, ResultT]):
    """Makes batches of the questions of several threads, without a window of time.

    A call that finds nobody at work is answered at once, alone. Those that come meanwhile wait, and the first of them
    then answers for all: batches grow with the load, and who is alone waits for nobody.

    Args:
        reply: answers a batch, one answer a question; an exception in an answer's place is raised to its asker.
        most: questions in a batch.
    """

    def __init__(
        self, reply: Callable[[Sequence[RequestT]], Sequence[ResultT | Exception]], most: int
    ) -> None:
        self._run_batch, self._most = reply, most
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: deque[BatchRequest[RequestT, ResultT]] = deque()

    def __len__(self) -> int:
        """How many wait now."""
        return len(self._waiting)

    def submit(self, question: RequestT) -> ResultT:
        """The answer to ``question``; raises what answering it raised."""
        ticket = BatchRequest[RequestT, ResultT](question)
        with self._lock:
            if self._busy:
                self._waiting.append(ticket)
            else:
                self._busy = ticket.leads = True
        if not ticket.leads:
            ticket.ready.wait()
        if ticket.leads:
            self._run_leader(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.answer  # type: ignore[return-value]  # set where there is no error

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Answer nobody inside the block; those who come meanwhile are answered together after it.

        Raises:
            RuntimeError: a batch is at work just now.
        """
        with self._lock:
            if self._busy:
                raise RuntimeError("expected nobody to be at work")
            self._busy = True
        try:
            yield
        finally:
            self._hand_over()

    def _run_leader(self, mine: BatchRequest[RequestT, ResultT]) -> None:
        with self._lock:
            others = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most - 1))]
        batch = [mine, *others]
        try:
            answers = self._run_batch([ticket.question for ticket in batch])
            for ticket, answer in zip(batch, answers, strict=True):
                ticket.answer, ticket.error = (
                    (None, answer) if isinstance(answer, Exception) else (answer, None)
                )
        except BaseException as error:  # noqa: BLE001 - raised where each asker waits
            for ticket in batch:
                ticket.error = error
        finally:
            self._hand_over()
            for ticket in others:
                ticket.ready.set()

    def _hand_over(self) -> None:
        with self._lock:
            if not self._waiting:
                self._busy = False
                return
            following = self._waiting.popleft()
            following.leads = True
        following.ready.set()


MAX_HEADS = 32
"""Trials that run as one batch: more gain nothing, and a batch's memory grows with them."""


@dataclass(frozen=True)
class HeadEpochRequest:
    """An epoch to train, and what to evaluate after it: activations in pieces, and their labels (N,) int32."""

    epoch: HeadEpoch
    validation: Sequence[np.ndarray]
    labels: np.ndarray


@dataclass(frozen=True)
class HeadEpochResult:
    """What came of it. ``loss`` is the sum of the steps' mean losses; seconds are this trial's share.

    ``together`` is how many trials the batch had.
    """

    state: HeadState
    loss: float
    val_loss: float
    val_accuracy: float
    train_seconds: float
    evaluate_seconds: float
    batch_size: int = 1


class HeadBatcher:
    """Runs epochs of heads of one shape; calls that wait at the same moment become one batch.

    Attributes:
        fused: the compiled heads.
        gathering: where epochs wait for each other.
        batches: how many trials each batch had, as {size: count}.
    """

    def __init__(self, shape: HeadShape) -> None:
        self.shape = shape
        self.batches: dict[int, int] = {}
        self.fused = FusedHeads(shape)
        self._dtypes: set[str] = set()
        self.queue = BatchQueue[HeadEpochRequest, HeadEpochResult](self._run_batch, MAX_HEADS)

    def compile(self, dtype: str) -> float:
        """Trace what is not traced yet for activations of ``dtype``; returns the seconds it took."""
        with BUILD_LOCK:
            if dtype in self._dtypes:
                return 0.0
            began = time.perf_counter()
            self.fused.compile(dtype)
            self._dtypes.add(dtype)
            return time.perf_counter() - began

    def run(self, run: HeadEpochRequest) -> HeadEpochResult:
        """Train and evaluate one epoch of one trial, together with all that wait now."""
        return self.queue.submit(run)

    def _run_batch(self, runs: Sequence[HeadEpochRequest]) -> list[HeadEpochResult | Exception]:
        """One batch; where that fails (no memory, most likely), each trial alone, with an error of its own."""
        try:
            ran: list[HeadEpochResult | Exception] = [*self._batch(runs)]
        except Exception as error:  # noqa: BLE001 - raised where the trial that it belongs to waits
            return [error] if len(runs) == 1 else [self._run_batch([run])[0] for run in runs]
        self.batches[len(runs)] = self.batches.get(len(runs), 0) + 1
        return ran

    def _batch(self, runs: Sequence[HeadEpochRequest]) -> list[HeadEpochResult]:
        share = 1.0 / len(runs)
        began = time.perf_counter()
        trained = self.fused.train([run.epoch for run in runs])
        between = time.perf_counter()
        losses, correct = self._evaluate([state.weights for _, state in trained], runs[0])
        seconds = (between - began) * share, (time.perf_counter() - between) * share
        count = len(runs[0].labels)
        return [
            HeadEpochResult(
                state, loss, float(losses[i]) / count, int(correct[i]) / count, *seconds, len(runs)
            )
            for i, (loss, state) in enumerate(trained)
        ]

    def _evaluate(
        self, weights: list[list[np.ndarray]], run: HeadEpochRequest
    ) -> tuple[np.ndarray, np.ndarray]:
        losses, correct, seen = np.zeros(len(weights)), np.zeros(len(weights), np.int64), 0
        for piece in run.validation:
            loss, right, _ = self.fused.evaluate(weights, piece, run.labels[seen : seen + len(piece)])
            losses, correct, seen = losses + loss, correct + right, seen + len(piece)
        return losses, correct
