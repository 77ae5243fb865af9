"""Test that after kills of the driver at any moment the same command ends with the result of an undisturbed run."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from search_command import WHOLE, SearchCommand, SuggestedConfigurations, expect_delivered, expect_whole

TRIALS = 12
KILLS = int(os.environ.get("UNFREEZE_KILLS", "10"))
"""Number of kills. Each of them costs the start of a search, so UNFREEZE_KILLS asks for more of them."""


def wait_for_trials(search: SearchCommand) -> None:
    """Wait until the last start has opened its ledger and runs trials, or has ended."""
    assert search.process is not None
    end = time.monotonic() + 120
    while search.process.poll() is None and "\ndigits: " not in search.log() and time.monotonic() < end:
        time.sleep(0.05)


def kill_after(process: subprocess.Popen[str], seconds: float) -> None:
    """Kill the driver alone with SIGKILL after ``seconds``, unless it has ended."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kills_at_any_moment_lose_nothing(tmp_path: Path) -> None:
    chance = random.Random(os.environ.get("UNFREEZE_KILL_SEED", "7"))
    arguments = ("--trials", str(TRIALS), "--epochs", "4", *WHOLE)
    search = SearchCommand(tmp_path, arguments, copied_store=False)
    suggested = SuggestedConfigurations(search)
    for kill in range(KILLS):
        process = search.start()
        if kill % 2:  # during the start, which takes several seconds
            kill_after(process, chance.uniform(0.5, 6))
        else:
            wait_for_trials(search)
            kill_after(process, chance.uniform(0, 4))
        suggested.check()
    search.run()
    suggested.check()
    expect_delivered(expect_whole(search.record(), TRIALS))
