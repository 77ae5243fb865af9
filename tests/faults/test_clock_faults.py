"""Test faults of time: the wall clock jumps, the machine sleeps."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from adjustable_clock import AdjustableClock
from search_command import SearchCommand, epochs, expect_delivered, expect_whole

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TRIALS = 3
LONG = ("--trials", str(TRIALS), "--epochs", "10", "--scheduler", "none", "--sampler", "random")


@pytest.fixture
def command(tmp_path: Path) -> Iterator[SearchCommand]:
    made = SearchCommand(tmp_path, LONG)
    yield made
    made.kill()


def test_sleep_and_jumps_of_the_wall_clock_change_nothing(command: SearchCommand, tmp_path: Path) -> None:
    clock = AdjustableClock(tmp_path)
    command.environment = clock.environment
    began = time.monotonic()
    process = command.start("--time-budget", "30m")
    for seconds, count in ((3600, 4), (-3600, 10), (7200, 16)):
        command.wait_for(lambda record, count=count: epochs(record) >= count)
        clock.set_offset(seconds)
    command.signal_all(signal.SIGSTOP)
    before = command.record()
    time.sleep(12)
    assert before == command.record()
    command.signal_all(signal.SIGCONT)
    assert process.wait(400) == 0, command.log()
    record = expect_whole(command.record(), TRIALS)
    expect_delivered(record)
    assert record.stopped is None
    assert 0 < record.elapsed <= time.monotonic() - began
    assert all(0 < epoch.epoch_seconds < 600 for trial in record.trials for epoch in trial.epochs)
    leaps = [abs((t.ended - t.started).total_seconds()) for t in record.trials if t.ended and t.started]
    assert max(leaps) > 1800, "the clock never leapt"
