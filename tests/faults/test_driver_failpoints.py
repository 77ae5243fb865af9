"""Test that a search whose driver dies at every failpoint ends with the result of an undisturbed run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from search_command import WHOLE, SearchCommand, SuggestedConfigurations, expect_delivered, expect_whole

from search.fault_injection import FAILPOINTS, KILL_AT_VARIABLE

TRIALS = 4

PLACES = tuple(os.environ.get("UNFREEZE_KILL_PLACES", "").split()) or (
    "suggested:2",
    "ending",
    "run-created",
    "retrained",
    "measured",
    "version-created",
    "finished",
)
"""Failpoints at which the driver dies, one after another. UNFREEZE_KILL_PLACES names others."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_every_failpoint_the_search_ends_complete_and_leaves_no_process(tmp_path: Path) -> None:
    arguments = ("--trials", str(TRIALS), "--epochs", "3", "--confirm-seeds", "2", *WHOLE)
    search = SearchCommand(tmp_path, arguments)
    suggested = SuggestedConfigurations(search)
    assert {place.partition(":")[0] for place in PLACES} <= set(FAILPOINTS)
    for place in PLACES:
        search.environment = {KILL_AT_VARIABLE: place}
        assert search.start().wait(240) == -signal.SIGKILL, (place, search.log())
        suggested.check()
    search.environment = {}
    search.run()
    suggested.check()
    expect_delivered(expect_whole(search.record(), TRIALS))
    end = time.monotonic() + 60
    while (left := search.processes()) and time.monotonic() < end:
        time.sleep(0.5)
    assert left == []
