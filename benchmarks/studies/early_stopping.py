"""Compare where successive halving stops trials: at the first epoch, as earlier versions did, and after the warm-up.

    python -m benchmarks.studies.early_stopping --seeds 3 --output early_stopping.jsonl

Whole searches (``unfreeze search`` without a baseline) on small tasks: ``digits`` is the built-in data with a few
labels per class, ``gratings`` are generated images of stripes in noise, whose class is their direction. The rungs are

- ``epoch 1``: 20 epochs, rungs after 1, 3 and 9 of them;
- ``default``: as many epochs as the data needs, rungs at the shares of the training that the product uses.

During the warm-up and shortly after it, trials are ranked by their learning rate. The study prints Spearman's rank
correlation between the learning rate and the value of the trials that were stopped, the epochs after which they were,
and the accuracy of the winner on the test images. Searches that ``--output`` already contains are not run again.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.stats import spearmanr

from search import SearchConfig, run_search
from search.execution.schedulers import FIRST_RUNG
from search.records.record import SearchRecord, TrialRecord

EARLIER_EPOCHS = 20
"""Epochs of a trial in earlier versions, whatever the data."""

RUNGS = ("epoch 1", "default")
TASKS = ("digits", "gratings")
DIRECTIONS = 6
SIZE = 32
SPLITS = {"validation": 20, "test": 50}
"""Images per class."""


def digits(labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``labels`` and the images of :data:`SPLITS` per digit (N, 8, 8) uint8, and their classes (N,)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    generator, count = np.random.default_rng(seed), labels + sum(SPLITS.values())
    rows = np.concatenate(
        [generator.permutation(np.flatnonzero(data.target == digit))[:count] for digit in range(10)]
    )
    return np.rint(data.images[rows] * (255 / 16)).astype(np.uint8), data.target[rows]


def gratings(labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 32, 32) uint8 of stripes in noise, and their directions (N,), as many as :func:`digits`."""
    generator, count = np.random.default_rng([seed, 0x57]), labels + sum(SPLITS.values())
    classes = np.repeat(np.arange(DIRECTIONS), count)
    n = len(classes)
    angle = (classes + generator.uniform(-0.4, 0.4, n)) * np.pi / DIRECTIONS
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    along = x * np.cos(angle)[:, None, None] + y * np.sin(angle)[:, None, None]
    frequency, phase = generator.uniform(3, 6, (n, 1, 1)), generator.uniform(0, 1, (n, 1, 1))
    waves = np.sin(2 * np.pi * (frequency * along + phase))
    noisy = 0.5 + 0.2 * waves + generator.normal(0, 0.25, waves.shape)
    return (255 * noisy.clip(0, 1)).astype(np.uint8), classes


def write_task(name: str, file: Path, labels: int, seed: int) -> Path:
    """Write a task as a Parquet file with ``labels`` training images per class."""
    images, classes = (digits if name == "digits" else gratings)(labels, seed)
    splits = ["train"] * labels + [split for split, count in SPLITS.items() for _ in range(count)]
    content = {
        "image": [_png(image) for image in images],
        "label": [str(c) for c in classes],
        "split": splits * (len(images) // len(splits)),
    }
    pq.write_table(pa.table(content), file)
    return file


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def with_rungs(name: str) -> AbstractContextManager[Any]:
    """Let schedulers use these rungs meanwhile."""
    first = 1 / EARLIER_EPOCHS if name == "epoch 1" else FIRST_RUNG
    return patch("search.execution.schedulers.FIRST_RUNG", first)


def run(task: str, rungs: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Run one search and describe how its trials ended."""
    with tempfile.TemporaryDirectory() as place, with_rungs(rungs):
        folder = Path(place)
        config = SearchConfig(
            data=str(write_task(task, folder / f"{task}.parquet", given.labels, seed)),
            trials=given.trials,
            epochs=EARLIER_EPOCHS if rungs == "epoch 1" else None,
            baseline_trials=0,
            register=False,
            seed=seed,
            storage=str(folder / "runs"),
            cache=str(folder / "cache"),
        )
        began = time.monotonic()
        record = run_search(config).record
    return {"task": task, "rungs": rungs, "seed": seed, "seconds": time.monotonic() - began, **facts(record)}


def facts(record: SearchRecord) -> dict[str, Any]:
    """Return what the tables need of a search."""
    assert record.outcome is not None
    stopped = [t for t in record.trials if t.reason == "scheduler" and "learning_rate" in t.params]
    return {
        "epochs": record.config["epochs"],
        "stopped": [
            {
                "epoch": t.epochs[-1].epoch,
                "rate": t.params["learning_rate"],
                "value": t.epochs[-1].metric(record.metric),
            }
            for t in stopped
        ],
        "trained": sum(len(t.epochs) for t in record.trials),
        "winner": record.outcome.trial,
        "validation": _value(record.best),
        "test": float(np.mean(record.outcome.seed_test_accuracies)),
    }


def _value(best: TrialRecord | None) -> float | None:
    return None if best is None else best.value


def table(done: Sequence[dict[str, Any]]) -> str:
    """One row per task and rungs: means over the seeds, and what the stopped trials of all seeds have in common."""
    lines = [
        "| task | rungs | searches | epochs | stopped after epoch: trials | earliest share | rank correlation | epochs "
        "trained | test accuracy |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for task in TASKS:
        for rungs in RUNGS:
            runs = [d for d in done if (d["task"], d["rungs"]) == (task, rungs)]
            if runs:
                lines.append(_row(task, rungs, runs))
    return "\n".join(lines)


def _row(task: str, rungs: str, runs: Sequence[dict[str, Any]]) -> str:
    stopped = [(s, d["epochs"]) for d in runs for s in d["stopped"]]
    after = [s["epoch"] for s, _ in stopped]
    counts = ", ".join(f"{epoch}: {after.count(epoch)}" for epoch in sorted(set(after)))
    earliest = min((s["epoch"] / epochs for s, epochs in stopped), default=float("nan"))
    tests = [d["test"] for d in runs]
    return (
        f"| {task} | {rungs} | {len(runs)} | {runs[0]['epochs']} | {counts or 'none'} | {earliest:.2f} "
        f"| {rank_correlation(runs)} | {np.mean([d['trained'] for d in runs]):.0f} "
        f"| {np.mean(tests):.3f} ({', '.join(f'{test:.3f}' for test in tests)}) |"
    )


def rank_correlation(runs: Sequence[dict[str, Any]]) -> str:
    """Spearman's correlation of learning rate and value among the trials stopped at the earliest rung of each search.

    Trials that were stopped later have better values, whatever their learning rate, and would hide it.
    """
    found, count = [], 0
    for d in runs:
        first = min((s["epoch"] for s in d["stopped"]), default=0)
        early = [s for s in d["stopped"] if s["epoch"] == first]
        if len(early) > 2:
            found.append(spearmanr([s["rate"] for s in early], [s["value"] for s in early]).statistic)
            count += len(early)
    return f"{np.nanmean(found):+.2f} ({count} trials)" if found else "–"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Where successive halving stops trials, and what it chooses."
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--labels", type=int, default=10, help="training images per class")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("early_stopping.jsonl"), help="appended to")
    given = parser.parse_args()
    done = (
        [json.loads(line) for line in given.output.read_text().splitlines()] if given.output.exists() else []
    )
    known = {(d["task"], d["rungs"], d["seed"]) for d in done}
    for seed in range(given.seeds):
        for task in given.tasks:
            for rungs in RUNGS:
                if (task, rungs, seed) not in known:
                    done.append(run(task, rungs, seed, given))
                    with given.output.open("a") as sink:
                        sink.write(json.dumps(done[-1]) + "\n")
    print(table(done))


if __name__ == "__main__":
    main()
