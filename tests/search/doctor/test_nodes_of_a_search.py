"""A search on a cluster says which nodes there are and where each trial runs, while it runs and afterwards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from raylets import Raylets, short_folder

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

WORKERS = ("worker-1", "worker-2")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Raylets]:
    """A head that runs no trials, and two workers."""
    folder = short_folder()
    made = Raylets(folder)
    try:
        made.start(cpus=0)
        for name in WORKERS:
            made.add(name)
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)


def unfreeze(cluster: Raylets, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "search.cli", *arguments],
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_lines_ledger_and_logs_name_the_node_of_each_trial(cluster: Raylets, tmp_path: Path) -> None:
    options = "--trials 4 --epochs 2 --baseline-trials 0 --confirm-seeds 1 --scheduler none --no-register"
    options += " --probe off --finalists 1 --no-refit"
    places = ["--storage", str(tmp_path)]
    done = unfreeze(cluster, "search", *options.split(), "--address", cluster.address, "--name", "ü", *places)
    assert done.returncode == 0, done.stderr
    assert "3 nodes · " in done.stderr
    assert "is not shared" not in done.stderr
    assert "versions: " not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("trial ")]
    assert len(lines) == 4
    where = set()
    for number in range(4):
        story = json.loads(unfreeze(cluster, "logs", "ü", str(number), "--json", *places).stdout)
        assert story["node"] in WORKERS
        assert any(
            line.startswith(f"trial {number:>3}") and f"on {story['node']}  " in line for line in lines
        )
        assert "begins" in story["happenings"][0]["words"]
        where |= {h["source"] for h in story["happenings"] if h["source"] != "driver"}
    assert len(where) == len(list((tmp_path / "ü" / "logs").glob("*-*.log")))
