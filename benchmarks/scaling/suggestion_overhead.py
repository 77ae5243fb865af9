"""Measure what a new trial costs the ledger and its sampler as a search grows, without Ray, training and MLflow.

    python -m benchmarks.scaling.suggestion_overhead --trials 2000

Trials start and end one after another in a separate SQLite ledger, each with five invented epochs. The numbers are ms
of the thread's processor time, as means over the trials since the previous row.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from search.config.space import make_space
from search.ledger.ledger import Ledger, sqlite_url
from trainables.epoch_metrics import EpochMetrics

EPOCHS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--running", type=int, default=1, help="number of trials that run at the same time")
    options = parser.parse_args()
    chance, space = random.Random(0), make_space("core", 4, "finetune")
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, {options.sampler}")
    print(" trials   start  report  finish")
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(
            sqlite_url(Path(folder) / "ledger.db"),
            "suggestions",
            direction="maximize",
            metric="val_accuracy",
            method="finetune",
            sampler=options.sampler,
            seed=0,
        )
        spent, running, since, row = {"start": 0.0, "report": 0.0, "finish": 0.0}, [], 0, 100
        with ledger.wal_mode():
            for number in range(options.trials):
                began = time.thread_time()
                running.append(ledger.start(space.suggest).number)  # type: ignore[arg-type]
                spent["start"] += time.thread_time() - began
                if len(running) >= options.running:
                    _train(ledger, running.pop(0), chance, spent)
                if number + 1 in (row, options.trials):
                    ms = {name: 1000 * seconds / (number + 1 - since) for name, seconds in spent.items()}
                    report = ms["report"] / EPOCHS
                    print(
                        f"{number + 1:>7} {ms['start']:>7.1f} {report:>7.2f} {ms['finish']:>7.1f}", flush=True
                    )
                    spent, since, row = dict.fromkeys(spent, 0.0), number + 1, row * 3


def _train(ledger: Ledger, number: int, chance: random.Random, spent: dict[str, float]) -> None:
    """Report five epochs and the end of a trial."""
    epochs = [EpochMetrics(e, chance.random(), 1.0, 1.0, 1.0) for e in range(1, EPOCHS + 1)]
    began = time.thread_time()
    for epoch in epochs:
        ledger.report(number, epoch)
    reported = time.thread_time()
    ledger.finish(number, "complete", epoch=epochs[-1])
    spent["report"] += reported - began
    spent["finish"] += time.thread_time() - reported


if __name__ == "__main__":
    main()
