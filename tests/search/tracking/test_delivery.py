"""Records are delivered in the background; a scripted mirror stands at the seam ``connect``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from search.records.record import BackboneSummary, SearchRecord, TaskSummary, TrialRecord
from search.tracking.delivery import Delivery
from trainables.errors import TrackingError

TASK = TaskSummary("t", "d", ("a", "b"), {"train": 1}, (8, 8), "digits")
BACKBONE = BackboneSummary("print", "default", "b", (8, 8), 1, ("top",))


def search(trials: int) -> SearchRecord:
    running = tuple(TrialRecord(n, "running", "finetune", {}) for n in range(trials))
    return SearchRecord("s", "val_accuracy", "maximize", TASK, BACKBONE, {}, running, requested=9)


def passing() -> TrackingError:
    """Return a transient error, as of a server that is unreachable for a moment."""
    error = TrackingError("MLflow is away")
    error.__cause__ = ConnectionError("refused")
    return error


class ScriptedMirror:
    """Records what is delivered; fails as often as configured."""

    def __init__(self, failures: int = 0, error: Callable[[], Exception] = passing) -> None:
        self.heard: list[object] = []
        self.threads: set[int] = set()
        self.failures = failures
        self.error = error
        self.tries = self.delivered = 0

    def sync(self, record: SearchRecord) -> None:
        self.threads.add(threading.get_ident())
        self.tries += 1
        if self.failures:
            self.failures -= 1
            raise self.error()
        self.heard.append(len(record.trials))

    def close(self, record: SearchRecord, status: str) -> None:
        self.heard.append(status)

    def log_artifact(self, path: Path) -> None:
        self.heard.append(path.name)

    def undelivered(self, record: SearchRecord) -> int:
        return len(record.trials)


def test_the_newest_record_is_delivered_and_the_search_closed() -> None:
    mirror = ScriptedMirror()
    delivery = Delivery(lambda: mirror)
    for count in range(200):
        delivery.publish(search(count))
    delivery.finish(search(200), "FINISHED", (Path("a/report.html"),))
    assert mirror.heard[-3:] == [200, "FINISHED", "report.html"]
    assert mirror.tries < 20
    assert mirror.threads != {threading.get_ident()}


def test_the_search_never_waits() -> None:
    gate = threading.Event()

    def connect() -> ScriptedMirror:
        gate.wait(20)
        return mirror

    mirror = ScriptedMirror()
    delivery = Delivery(connect)
    began = time.monotonic()
    for _ in range(1000):
        delivery.publish(search(1))
    assert time.monotonic() - began < 1
    gate.set()
    delivery.finish(search(2))
    assert mirror.heard[-2:] == [2, "FINISHED"]


def test_a_transient_failure_is_retried_and_reported_once() -> None:
    mirror, told = ScriptedMirror(failures=3), list[str]()
    delivery = Delivery(lambda: mirror, told.append)
    delivery.publish(search(1))
    delivery.finish(search(2), timeout=20)
    assert mirror.heard[-2:] == [2, "FINISHED"]
    assert told == ["MLflow is away"]


def test_a_call_runs_after_everything_published_before_it() -> None:
    mirror = ScriptedMirror(failures=2)
    delivery = Delivery(lambda: mirror, lambda text: None)
    delivery.publish(search(3))
    assert delivery.call(lambda m: list(m.heard), timeout=20) == [3]
    delivery.abandon()


def test_a_call_that_fails_transiently_is_repeated() -> None:
    mirror, tries = ScriptedMirror(), list[int]()

    def ask(_: object) -> str:
        tries.append(1)
        if len(tries) < 3:
            raise passing()
        return "answer"

    delivery = Delivery(lambda: mirror, lambda text: None)
    assert delivery.call(ask, timeout=20) == "answer"
    delivery.abandon()


@pytest.mark.parametrize("error", [TrackingError("no permission"), ValueError("a mistake")])
def test_a_permanent_error_is_raised_in_the_caller(error: Exception) -> None:
    def ask(_: object) -> None:
        raise error

    delivery = Delivery(ScriptedMirror, lambda text: None)
    with pytest.raises(type(error), match=str(error)):
        delivery.call(ask, timeout=20)
    delivery.finish(search(1))


def test_a_refusal_ends_the_wait_at_once() -> None:
    mirror = ScriptedMirror(failures=100, error=lambda: TrackingError("it asks for a login"))
    delivery = Delivery(lambda: mirror, lambda text: None)
    began = time.monotonic()
    with pytest.raises(TrackingError, match="it asks for a login"):
        delivery.finish(search(1), timeout=30)
    assert time.monotonic() - began < 10


def test_the_error_says_what_was_not_delivered_and_how_to_continue() -> None:
    mirror, told = ScriptedMirror(failures=100), list[str]()
    delivery = Delivery(lambda: mirror, told.append)
    delivery.publish(search(1))
    waiting = TrialRecord(2, "waiting", "finetune", {})
    record = search(2)
    with pytest.raises(TrackingError) as caught:
        delivery.finish(replace(record, trials=(*record.trials, waiting)), timeout=1)
    text = str(caught.value)
    assert "within 1 s: MLflow is away" in text
    assert "of 2 trials have results that MLflow has not received" in text
    assert "run the same command again" in text
    assert told == ["MLflow is away"]


@pytest.mark.parametrize("patient", [True, False])
def test_a_patient_call_waits_as_long_as_there_is_progress(patient: bool) -> None:
    mirror = ScriptedMirror()

    def slow(_: object) -> str:
        for _ in range(15):
            time.sleep(0.1)
            mirror.delivered += 1
        return "at last"

    delivery = Delivery(lambda: mirror, lambda text: None)
    if patient:
        assert delivery.call(slow, timeout=0.5) == "at last"
    else:
        with pytest.raises(TrackingError, match=r"within 0\.5 s"):
            delivery.call(slow, timeout=0.5, patient=False)
    delivery.abandon()


def test_deliveries_leave_the_processor_to_the_search() -> None:
    class BusyMirror(ScriptedMirror):
        after_trial: Callable[[], None]

        def sync(self, record: SearchRecord) -> None:
            super().sync(record)
            for _ in range(60):
                end = time.thread_time() + 0.02
                while time.thread_time() < end:
                    pass
                self.delivered += 1
                self.after_trial()

    mirror = BusyMirror()
    delivery = Delivery(lambda: mirror)
    began = time.monotonic()
    while mirror.delivered < 5 and time.monotonic() < began + 60:
        delivery.publish(search(1))
        time.sleep(0.01)
    assert mirror.tries == 1
    assert 5 <= mirror.delivered <= 1.2 * (time.monotonic() - began) / 0.2 + 1
    began = time.monotonic()
    delivery.finish(search(2))  # somebody waits now: 115 pieces that would take 23 s in their time
    assert time.monotonic() - began < 20
    assert mirror.heard[-2:] == [2, "FINISHED"]


def test_a_search_that_ends_early_is_closed_with_its_newest_record() -> None:
    mirror = ScriptedMirror()
    delivery = Delivery(lambda: mirror)
    delivery.publish(search(4))
    delivery.abandon("KILLED")
    assert mirror.heard[-2:] == [4, "KILLED"]
    delivery.abandon("KILLED")  # a second time is no error
    assert mirror.heard.count("KILLED") == 1


def test_an_early_end_does_not_raise() -> None:
    mirror, told = ScriptedMirror(failures=100), list[str]()
    delivery = Delivery(lambda: mirror, told.append)
    delivery.publish(search(1))
    delivery.abandon(timeout=0.5)
    assert "run the same command again" in told[-1]


def test_calls_after_the_end_are_refused() -> None:
    delivery = Delivery(ScriptedMirror)
    delivery.finish(search(1))
    with pytest.raises(TrackingError, match="tracking has ended: it was finished"):
        delivery.call(lambda m: None)
