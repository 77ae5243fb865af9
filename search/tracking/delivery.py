"""Deliver a search's records to MLflow in a background thread, so that the search never waits for a tracking server."""

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
"""Minimum seconds between two deliveries. Records that arrive in between are delivered together."""

MAX_CPU_SHARE = 0.1
"""Share of one processor that the thread may use while no caller waits for it.

MLflow is pure Python: without this limit the thread would hold the interpreter lock and slow the driver down.
"""

RETRY_SECONDS = (0.5, 30.0)
"""First and longest wait before the next try; each wait is twice the one before."""

MAX_RETRY_SECONDS_WHEN_AWAITED = 1.0
"""Longest wait before the next try while a caller waits for an answer."""

_log = logging.getLogger("unfreeze.tracking")


@dataclass(frozen=True, eq=False)
class _Request:
    """A call to make once the record with the number ``after`` has been delivered."""

    call: Callable[[Mirror], Any]
    after: int
    future: Future[Any] = field(default_factory=Future)


class Delivery:
    """A daemon thread that owns a :class:`~search.tracking.mirror.Mirror` and delivers the newest record to it.

    What could not be delivered is tried again until :meth:`finish` gives up. Nothing is lost then: the ledger has
    it, and the next run of the command delivers it.

    Args:
        connect: creates the mirror. It is called in the thread, since importing MLflow and creating a SQLite store
            take seconds, and again until it succeeds.
        on_problem: called from the thread with a message when deliveries have to wait; once for each different
            message.
        check_ownership: called before each trial's delivery. It raises :class:`~trainables.errors.LeaseLost` if
            another process has taken over the search; nothing more is delivered then.
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
        # Guards everything below. Re-entrant, because _stop() calls _answer_request() while it holds the lock.
        self._changed = threading.Condition(threading.RLock())
        # Set when a caller starts to wait: it ends the current pause.
        self._wake = threading.Event()
        self._record: SearchRecord | None = None
        self._published = self._delivered = 0
        self._requests: deque[_Request] = deque()
        self._mirror: Mirror | None = None
        self._cpu_seconds = 0.0
        self._error: Exception | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._deliver_loop, name="unfreeze-tracking", daemon=True)
        self._thread.start()

    def publish(self, record: SearchRecord) -> None:
        """Deliver ``record``, unless a newer one is published first. Returns at once."""
        with self._changed:
            self._record = record
            self._published += 1
            self._changed.notify()

    def call(
        self, call: Callable[[Mirror], Answer], timeout: float | None = None, *, patient: bool = True
    ) -> Answer:
        """Call ``call`` with the mirror, in the thread, once everything published so far has been delivered.

        It is called again after a transient failure. With ``patient``, the wait continues as long as some trial is
        delivered within every ``timeout`` seconds.

        Args:
            call: the function to call.
            timeout: seconds to wait; by default :func:`~search.config.environment.service_patience`.
            patient: whether progress extends the wait.

        Raises:
            TrackingError: MLflow refused, or did not accept everything in time.
        """
        timeout = service_patience() if timeout is None else timeout
        with self._changed:
            if self._stopped:
                raise self._end_error()
            request = _Request(call, self._published)
            self._requests.append(request)
            self._changed.notify()
        self._wake.set()
        while True:
            before = self._deliveries()
            try:
                answer: Answer = request.future.result(timeout)
            except TimeoutError:
                if patient and self._deliveries() > before:
                    continue
                # The caller gives up. A request that is removed here is not executed later, when nobody
                # expects it.
                self._answer_request(request, None)
                raise self._timeout_error(timeout) from self._error
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
        """Deliver ``record`` completely, end all open runs, add files to the search's run, and stop the thread.

        Raises:
            TrackingError: not everything was delivered in time, as for :meth:`call`; the message says how much is
                missing and how to continue.
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
            self._wake.set()
            # The thread is a daemon, so that a request that hangs cannot keep the process alive. Wait briefly only.
            self._thread.join(DELIVERY_INTERVAL)

    def abandon(self, status: ParentStatus = "KILLED", timeout: float = 10.0) -> None:
        """Finish with the newest record, for a search that ends early.

        This never raises a TrackingError, which would hide why the search ended; the message goes to ``on_problem``.
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
        """Stop delivering: the runs belong to another process now."""
        self._stop(None)
        self._wake.set()

    def _deliver_loop(self) -> None:
        wait, reported = RETRY_SECONDS[0], set[str]()
        while self._wait_for_work():
            try:
                self._deliver()
            # LeaseLost is a LedgerError, which would be tried again, so this clause comes first.
            except LeaseLost as error:
                self._stop(error)
            except (TrackingError, LedgerError) as error:
                self._error = error
                if str(error) not in reported:
                    self._on_problem(str(error))
                reported.add(str(error))
                self._pause(min(wait, MAX_RETRY_SECONDS_WHEN_AWAITED) if self._requests else wait)
                wait = min(2 * wait, RETRY_SECONDS[1])
            except Exception as error:
                self._stop(error)
                raise
            else:
                wait, self._error = RETRY_SECONDS[0], None
                self._throttle(DELIVERY_INTERVAL)

    def _wait_for_work(self) -> bool:
        """Wait for something to do; return False at the end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or self._requests or self._published > self._delivered
            )
            return not self._stopped

    def _deliver(self) -> None:
        with self._changed:
            # Take both under one lock: the record with its number. Newer records may be published during the
            # delivery.
            record, number = self._record, self._published
        self._check_ownership()
        try:
            if self._mirror is None:
                self._mirror = self._connect()
                self._mirror.after_trial = self._between_trials
                self._cpu_seconds = time.thread_time()
            if record is not None and number > self._delivered:
                self._mirror.sync(record)
                self._delivered = number
        except (TrackingError, LedgerError) as error:
            if not _is_transient(error):
                self._refuse(error)
            raise
        # Requests are answered in order, and only after everything that was published before them.
        while self._requests and self._requests[0].after <= self._delivered:
            self._check_ownership()
            self._reply(self._requests[0], self._mirror)
            # A caller waited for this work, so that it does not count towards MAX_CPU_SHARE.
            self._cpu_seconds = time.thread_time()

    def _reply(self, request: _Request, mirror: Mirror) -> None:
        """Answer a request, with an error if necessary.

        A transient error is raised instead, and the request stays queued.
        """
        answer: Any = None
        # A caller whose time was over has answered the request itself.
        if not request.future.done():
            try:
                answer = request.call(mirror)
            except Exception as error:
                if _is_transient(error):
                    raise
                answer = error  # raised in the caller's thread
        self._answer_request(request, answer)

    def _refuse(self, error: Exception) -> None:
        for request in list(self._requests):
            self._answer_request(request, error)

    def _answer_request(self, request: _Request, answer: Any) -> None:
        with self._changed:
            if request in self._requests:
                self._requests.remove(request)
            if request.future.done():
                return
            if isinstance(answer, Exception):
                request.future.set_exception(answer)
            else:
                request.future.set_result(answer)

    def _between_trials(self) -> None:
        self._throttle()
        self._check_ownership()

    def _throttle(self, min_seconds: float = 0.0) -> None:
        """Leave the processor to others long enough to stay below MAX_CPU_SHARE, unless a caller waits."""
        # thread_time() counts the processor time of this thread only, not the time that it waited for the server.
        used, self._cpu_seconds = time.thread_time() - self._cpu_seconds, time.thread_time()
        if not self._requests:
            self._pause(max(min_seconds, used * (1 - MAX_CPU_SHARE) / MAX_CPU_SHARE))

    def _pause(self, seconds: float) -> None:
        self._wake.wait(seconds)
        # If a caller sets the event between these two lines, nothing is lost: its request is in the queue
        # already.
        self._wake.clear()

    def _stop(self, error: Exception | None) -> None:
        with self._changed:
            self._stopped, self._error = True, error or self._error
            self._refuse(self._end_error())
            self._changed.notify()

    def _end_error(self) -> Exception:
        if isinstance(self._error, LeaseLost):
            return self._error
        return TrackingError(f"tracking has ended: {self._error or 'it was finished'}")

    def _deliveries(self) -> int:
        return self._mirror.delivered if self._mirror else 0

    def _timeout_error(self, timeout: float) -> TrackingError:
        record, missing = self._record, ""
        if record is not None:
            begun = sum(t.state != "waiting" for t in record.trials)
            count = self._mirror.undelivered(record) if self._mirror else begun
            missing = f" {count} of {begun} trials have results that MLflow has not received."
        cause = str(self._error or "it is slow").removesuffix(".")
        return TrackingError(
            f"MLflow did not accept everything within {timeout:g} s: {cause}.{missing} "
            "Nothing is lost: run the same command again to deliver it."
        )


def _is_transient(error: Exception) -> bool:
    from search.tracking.client import is_transient

    if isinstance(error, LedgerError):
        return not isinstance(error, LeaseLost)
    return isinstance(error, TrackingError) and is_transient(error)
