"""Run one search of :mod:`benchmarks.time_to_quality` in this process:
``python -m benchmarks.peers.run_quality_search NAME FOLDER TRIALS RESULT.json``.

The script writes the times, in seconds since 1970, at which the best validation accuracy improved.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.workloads.workload import Workload

if TYPE_CHECKING:
    from search.records.record import SearchRecord


class ImprovementView:
    """A view of a search that records when a better epoch is first reported."""

    def __init__(self) -> None:
        self.improvements: list[tuple[float, float]] = []

    def event(self, message: str) -> None:
        """Nothing."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Nothing."""

    def update(self, record: SearchRecord) -> None:
        """Record an improvement."""
        best = max((e.val_accuracy for t in record.trials for e in t.epochs), default=0.0)
        if best > (self.improvements[-1][1] if self.improvements else 0.0):
            self.improvements.append((time.time(), best))

    def close(self) -> None:
        """Nothing."""


def unfreeze(work: Workload, trials: int) -> list[tuple[float, float]]:
    """Run unfreeze with its defaults, without baseline and registration, which come after the trials."""
    os.environ["UNFREEZE_CACHE"] = str(work.folder / "activations")
    from search import SearchConfig, run_search

    watch = ImprovementView()
    config = SearchConfig(
        data="digits",
        trials=trials,
        epochs=work.epochs,
        batch_size=work.batch_size,
        baseline_trials=0,
        confirm_seeds=1,
        register_model=False,
        max_concurrent=work.concurrent,
        seed=work.seed,
        storage=str(work.folder / "unfreeze"),
    )
    run_search(config, watch)
    return watch.improvements


def ray_tune(work: Workload, trials: int) -> list[tuple[float, float]]:
    """Run the peer."""
    from benchmarks.peers.ray_tune_optuna import search

    return search(work, trials).improvements


def main(name: str, folder: str, trials: str, result: str) -> None:
    """Run the search and write the result."""
    work = Workload.open(Path(folder))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: work.concurrent])
    run = {"unfreeze": unfreeze, "ray-tune": ray_tune}[name]
    Path(result).write_text(json.dumps(run(work, int(trials))))


if __name__ == "__main__":
    main(*sys.argv[1:])
