"""Test the reasons to stop a search: signals and the deadline."""

from __future__ import annotations

import io
import signal
import time

import pytest

from search.execution.stop_request import StopRequest
from search.views.plain import PlainView


class InterruptedWhileWriting(io.StringIO):
    """A stream whose first write is interrupted by a signal to the writing thread."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self._number: signal.Signals | None = number

    def write(self, text: str) -> int:
        number, self._number = self._number, None
        if number is not None:
            signal.raise_signal(number)
        return super().write(text)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_write_to_the_view_is_handled(number: signal.Signals) -> None:
    stream = InterruptedWhileWriting(number)
    view = PlainView(stream)
    stop_request = StopRequest(notify=view.event)
    with stop_request.handling_signals():
        view.event("first line")
        assert stop_request.reason == "interrupted"
    end = time.monotonic() + 30
    while "press Ctrl-C again to stop at once" not in stream.getvalue() and time.monotonic() < end:
        time.sleep(0.01)
    assert stream.getvalue().splitlines() == [
        "first line",
        "stopping the search and saving its state; press Ctrl-C again to stop at once",
    ]


def test_the_second_signal_has_its_previous_effect() -> None:
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a job in the background has it ignored
    stop_request = StopRequest()
    with stop_request.handling_signals():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def test_a_signal_takes_precedence_over_a_deadline() -> None:
    stop_request = StopRequest()
    assert stop_request.reason is None
    late = stop_request.with_deadline(1e-9)
    assert late.reason == "time_budget"
    stop_request.signalled.set()
    assert late.reason == "interrupted"
