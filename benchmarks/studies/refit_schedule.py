"""Measure for how many epochs, and on which schedule, a configuration should be trained on all labels.

    python -m benchmarks.studies.refit_schedule --configurations 6 --seeds 3

Each configuration is first trained on the training images of a task of :mod:`benchmarks.studies.early_stopping`, with
several seeds; N is its mean best epoch, as the finalists of a search find it. It is then trained on training and
validation images together in three ways, and measured on the test images:

- ``stop``: the schedule of the trials, stopped after N epochs, which is what a search does;
- ``short``: a schedule of N epochs, so that the learning rate has decayed at the end;
- ``whole``: the schedule of the trials to its end.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.same_work import conditions
from benchmarks.studies.early_stopping import write_task
from benchmarks.studies.training_length import configurations
from trainables.backbones.spec import BackboneSpec
from trainables.methods.methods import begin
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

EPOCHS = 24
FINALISTS: dict[str, Any] = {"depths": (1, 4), "rates": (-3.7, -2.7), "strengths": (0, 0.25, 0.5)}
"""Ranges of random parameters such as the finalists of a search have."""


def best_epoch(bench: Workbench, params: dict[str, Any], seed: int) -> int:
    """Train to the last epoch and return the best one."""
    training = begin(TrialConfig("finetune", params, epochs=EPOCHS, seed=seed, head_init="probe"), bench)
    while not training.done:
        training.run_epoch()
    best = training.best
    training.release()
    return best.epoch if best else EPOCHS


def refit_accuracy(bench: Workbench, params: dict[str, Any], epochs: int, stop: int, seed: int) -> float:
    """Train on all labels, and return the test accuracy of the last epoch's weights."""
    config = TrialConfig(
        "finetune", params, epochs=epochs, seed=seed, stop_epoch=stop, keep="last", head_init="probe"
    )
    training = begin(config, bench)
    while not training.done:
        training.run_epoch()
    answers = training.predict("test").argmax(axis=1)
    training.release()
    return float((answers == bench.task.split("test").labels).mean())


def main() -> None:
    """Train, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=["digits", "gratings"], default=["digits", "gratings"])
    parser.add_argument("--labels", type=int, default=10, help="training images per class")
    parser.add_argument("--configurations", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    print(conditions(), flush=True)
    print("| task | configuration | N | stop | short | whole |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    gains: defaultdict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        backbone = Path(folder) / "print.keras"
        load(BackboneSpec("print")).save(backbone)
        for name in given.tasks:
            file = write_task(name, Path(folder) / f"{name}.parquet", given.labels, seed=0)
            task = prepare(str(file), image_size=(32, 32), directory=Path(folder) / name).directory
            plain, whole = (Workbench.open(backbone, task, refit=refit) for refit in (False, True))
            for number, params in enumerate(configurations(given.configurations, seed=1, **FINALISTS)):
                seeds = range(given.seeds)
                chosen = max(1, round(float(np.mean([best_epoch(plain, params, s) for s in seeds]))))
                ways = {"stop": (EPOCHS, chosen), "short": (chosen, chosen), "whole": (EPOCHS, EPOCHS)}
                found = {
                    way: np.array([refit_accuracy(whole, params, *lengths, 100 + s) for s in seeds])
                    for way, lengths in ways.items()
                }
                cells = " | ".join(f"{values.mean():.4f}" for values in found.values())
                print(f"| {name} | {number} | {chosen} | {cells} |", flush=True)
                for way in ("short", "whole"):
                    gains[way].append(float((found[way] - found["stop"]).mean()))
    for way, values in gains.items():
        error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
        print(f"{way} - stop: {100 * np.mean(values):+.2f} points, standard error {100 * error:.2f}")


if __name__ == "__main__":
    main()
