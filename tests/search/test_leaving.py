"""Ray is left in the background, once, and the end waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from search.session import leaving


class Side:
    """What takes a while to end: until ``may_end``."""

    def __init__(self) -> None:
        self.ends, self.may_end = list[str](), threading.Event()
        self.stack = ExitStack()
        self.stack.callback(self.end)

    def end(self) -> None:
        assert self.may_end.wait(60)
        self.ends.append(threading.current_thread().name)


@pytest.fixture
def side() -> Side:
    return Side()


def test_it_ends_in_the_background_once_and_is_waited_for(side: Side) -> None:
    with leaving(side.stack) as leave:
        leave()
        leave()
        assert side.ends == []
        side.may_end.set()
    assert side.ends == ["unfreeze-leaving"]
    side.stack.close()
    assert len(side.ends) == 1


def test_it_is_waited_for_where_the_body_fails(side: Side) -> None:
    threading.Timer(0.2, side.may_end.set).start()
    with pytest.raises(ZeroDivisionError), leaving(side.stack) as leave:
        leave_and_fail(leave)
    assert side.ends == ["unfreeze-leaving"]


def leave_and_fail(leave: Callable[[], None]) -> None:
    leave()
    _ = 1 / 0


def test_who_does_not_ask_stays(side: Side) -> None:
    with leaving(side.stack):
        pass
    assert side.ends == []
    side.may_end.set()
    side.stack.close()
    assert side.ends == ["MainThread"]
