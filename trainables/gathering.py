"""Calls that come while another one runs are answered together by the next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


@dataclass(eq=False)
class Ticket(Generic[Question, Answer]):
    """One call: its question, and its answer or error once ``ready`` is set. Who ``leads`` answers for others too."""

    question: Question
    leads: bool = False
    ready: threading.Event = field(default_factory=threading.Event)
    answer: Answer | None = None
    error: BaseException | None = None


class Gathering(Generic[Question, Answer]):
    """Makes batches of the questions of several threads, without a window of time.

    A call that finds nobody at work is answered at once, alone. Those that come meanwhile wait, and the first of them
    then answers for all: batches grow with the load, and who is alone waits for nobody.

    Args:
        reply: answers a batch, one answer a question; an exception in an answer's place is raised to its asker.
        most: questions in a batch.
    """

    def __init__(
        self, reply: Callable[[Sequence[Question]], Sequence[Answer | Exception]], most: int
    ) -> None:
        self._reply, self._most = reply, most
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: deque[Ticket[Question, Answer]] = deque()

    def __len__(self) -> int:
        """How many wait now."""
        return len(self._waiting)

    def ask(self, question: Question) -> Answer:
        """The answer to ``question``; raises what answering it raised."""
        ticket = Ticket[Question, Answer](question)
        with self._lock:
            if self._busy:
                self._waiting.append(ticket)
            else:
                self._busy = ticket.leads = True
        if not ticket.leads:
            ticket.ready.wait()
        if ticket.leads:
            self._lead(ticket)
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

    def _lead(self, mine: Ticket[Question, Answer]) -> None:
        with self._lock:
            others = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most - 1))]
        batch = [mine, *others]
        try:
            answers = self._reply([ticket.question for ticket in batch])
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
