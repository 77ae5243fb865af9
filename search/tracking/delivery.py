"""Brings a search's records to MLflow in the background: the search never waits for a tracking server."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from search.config.environment import service_patience
from search.records.record import SearchRecord
from trainables.errors import LeaseLost, LedgerError, TrackingError

if TYPE_CHECKING:
    from search.tracking.mirror import Mirror, ParentStatus

Answer = TypeVar("Answer")

DELIVERY_INTERVAL = 0.3
"""Between two deliveries, at least; what comes meanwhile is sent together."""

MAX_CPU_SHARE = 0.1
"""Of a processor that the thread takes while nobody waits for it: the driver's thread needs the interpreter, too."""

RETRY_SECONDS = (0.5, 30.0)
"""First and longest wait before the next try; each wait is twice the one before."""

MAX_RETRY_SECONDS_WHEN_AWAITED = 1.0
"""Longest wait while somebody waits for an answer."""

_log = logging.getLogger("unfreeze.tracking")


@dataclass(frozen=True, eq=False)
class _Request:
    """To be answered once the record with the number ``after`` has been delivered."""

    call: Callable[[Mirror], Any]
    after: int
    future: Future[Any] = field(default_factory=Future)


class Delivery:
    """A daemon thread that owns a :class:`~search.tracking.mirror.Mirror` and brings it the newest record.

    Args:
        connect: makes the mirror; called in the thread, since to import MLflow and to make a SQLite store
            takes seconds, and again until it succeeds.
        on_problem: told, from the thread and once for each kind of on_problem, that deliveries wait.
        check_ownership: asked before each trial's delivery, where another process may have taken over the search; it raises
            :class:`~trainables.errors.LeaseLost` then, and nothing more is delivered.

    What could not be delivered is tried again until :meth:`finish` gives up. Nothing is lost then: the ledger
    has it, and the next session of the search delivers it.
    """

    def __init__(
        self,
        connect: Callable[[], Mirror],
        on_problem: Callable[[str], object] = _log.warning,
        check_ownership: Callable[[], None] | None = None,
    ) -> None:
        self._connect = connect
        self._on_problem = on_problem
        self._check_ownership = check_ownership or (lambda: None)
        self._news = threading.Condition(threading.RLock())
        self._hurry = threading.Event()
        self._record: SearchRecord | None = None
        self._published = self._delivered = 0
        self._questions: deque[_Request] = deque()
        self._mirror: Mirror | None = None
        self._spent = 0.0
        self._error: Exception | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="unfreeze-tracking", daemon=True)
        self._thread.start()

    def publish(self, record: SearchRecord) -> None:
        """Have ``record`` delivered, unless a newer one comes first. Returns at once."""
        with self._news:
            self._record = record
            self._published += 1
            self._news.notify()

    def call(
        self, call: Callable[[Mirror], Answer], timeout: float | None = None, *, patient: bool = True
    ) -> Answer:
        """Call ``call`` with the mirror, in its thread, once everything published so far is delivered.

        It may be called again after a failure that can pass. Who is patient waits on for as long as some trial is
        delivered in every ``timeout`` seconds; None is :func:`~search.config.environment.service_patience`.

        Raises:
            TrackingError: MLflow refused, or did not take everything in time.
        """
        timeout = service_patience() if timeout is None else timeout
        with self._news:
            if self._stopped:
                raise self._ended()
            question = _Request(call, self._published)
            self._questions.append(question)
            self._news.notify()
        self._hurry.set()
        while True:
            brought = self._brought()
            try:
                answer: Answer = question.future.result(timeout)
            except TimeoutError:
                if patient and self._brought() > brought:
                    continue
                self._settle(question, None)
                raise self._late(timeout) from self._error
            return answer

    def finish(
        self,
        record: SearchRecord,
        status: ParentStatus = "FINISHED",
        artifacts: tuple[Path, ...] = (),
        timeout: float | None = None,
        *,
        patient: bool = True,
    ) -> None:
        """Deliver ``record`` whole, leave nothing running in MLflow, add files to the search's run, and stop.

        Raises:
            TrackingError: not all was delivered in time, as in :meth:`ask`; the message says how much is missing
                and how to go on.
        """

        def last(mirror: Mirror) -> None:
            mirror.close(record, status)
            for path in artifacts:
                mirror.log_artifact(path)

        self.publish(record)
        try:
            self.call(last, timeout, patient=patient)
        finally:
            self._stop(None)
            self._hurry.set()
            self._thread.join(DELIVERY_INTERVAL)

    def abandon(self, status: ParentStatus = "KILLED", timeout: float = 10.0) -> None:
        """:meth:`finish` with the newest record, for a search that ends before its time.

        Never raises a TrackingError, which would hide why the search ended: ``on_problem`` is told.
        """
        record = self._record
        if record is None or self._stopped:
            self._stop(None)
            return
        try:
            self.finish(record, status, timeout=timeout, patient=False)
        except TrackingError as error:
            self._on_problem(str(error))

    def discard(self) -> None:
        """Deliver nothing more: the runs are another process's now."""
        self._stop(None)
        self._hurry.set()

    def _work(self) -> None:
        wait, told = RETRY_SECONDS[0], set[str]()
        while self._has_news():
            try:
                self._deliver()
            except LeaseLost as error:
                self._stop(error)
            except (TrackingError, LedgerError) as error:
                self._error = error
                if str(error) not in told:
                    self._on_problem(str(error))
                told.add(str(error))
                self._pause(min(wait, MAX_RETRY_SECONDS_WHEN_AWAITED) if self._questions else wait)
                wait = min(2 * wait, RETRY_SECONDS[1])
            except Exception as error:
                self._stop(error)
                raise
            else:
                wait, self._error = RETRY_SECONDS[0], None
                self._rest(DELIVERY_INTERVAL)

    def _has_news(self) -> bool:
        """Wait for something to do; False at the end."""
        with self._news:
            self._news.wait_for(lambda: self._stopped or self._questions or self._published > self._delivered)
            return not self._stopped

    def _deliver(self) -> None:
        with self._news:
            record, number = self._record, self._published
        self._check_ownership()
        try:
            if self._mirror is None:
                self._mirror = self._connect()
                self._mirror.after_trial = self._between_trials
                self._spent = time.thread_time()
            if record is not None and number > self._delivered:
                self._mirror.sync(record)
                self._delivered = number
        except (TrackingError, LedgerError) as error:
            if not _is_transient(error):
                self._refuse(error)
            raise
        while self._questions and self._questions[0].after <= self._delivered:
            self._check_ownership()
            self._reply(self._questions[0], self._mirror)
            self._spent = time.thread_time()  # somebody asked for that

    def _reply(self, question: _Request, mirror: Mirror) -> None:
        """Answer, with an error if need be; one that can pass is raised, and the question stays."""
        answer: Any = None
        if not question.future.done():
            try:
                answer = question.call(mirror)
            except Exception as error:
                if _is_transient(error):
                    raise
                answer = error  # it belongs to whoever asked
        self._settle(question, answer)

    def _refuse(self, error: Exception) -> None:
        for question in list(self._questions):
            self._settle(question, error)

    def _settle(self, question: _Request, answer: Any) -> None:
        with self._news:
            if question in self._questions:
                self._questions.remove(question)
            if question.future.done():
                return
            if isinstance(answer, Exception):
                question.future.set_exception(answer)
            else:
                question.future.set_result(answer)

    def _between_trials(self) -> None:
        self._rest()
        self._check_ownership()

    def _rest(self, least: float = 0.0) -> None:
        """Leave the processor to others for long enough, unless somebody waits."""
        spent, self._spent = time.thread_time() - self._spent, time.thread_time()
        if not self._questions:
            self._pause(max(least, spent * (1 - MAX_CPU_SHARE) / MAX_CPU_SHARE))

    def _pause(self, seconds: float) -> None:
        self._hurry.wait(seconds)
        self._hurry.clear()

    def _stop(self, error: Exception | None) -> None:
        with self._news:
            self._stopped, self._error = True, error or self._error
            self._refuse(self._ended())
            self._news.notify()

    def _ended(self) -> Exception:
        if isinstance(self._error, LeaseLost):
            return self._error
        return TrackingError(f"tracking has ended: {self._error or 'it was finished'}")

    def _brought(self) -> int:
        return self._mirror.delivered if self._mirror else 0

    def _late(self, timeout: float) -> TrackingError:
        record, missing = self._record, ""
        if record is not None:
            begun = sum(t.state != "waiting" for t in record.trials)
            count = self._mirror.undelivered(record) if self._mirror else begun
            missing = f" {count} of {begun} trials have news that MLflow has not heard."
        return TrackingError(
            f"MLflow did not take everything within {timeout:g} s: {self._error or 'it is slow'}.{missing} "
            "Nothing is lost: run the same command again to deliver it."
        )


def _is_transient(error: Exception) -> bool:
    from search.tracking.client import is_transient

    if isinstance(error, LedgerError):
        return not isinstance(error, LeaseLost)
    return isinstance(error, TrackingError) and is_transient(error)
