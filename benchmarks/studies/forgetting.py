"""Measure what fine-tuning forgets and what it costs to keep the old task: plain, EWC, LwF and rehearsal.

    python -m benchmarks.studies.forgetting --seeds 5

A small dense network is trained on scikit-learn's digits 0 to 4 (the old task) and fine-tuned, with all blocks, to the
digits 5 to 9 with 20 labels per class. Each row shows the test accuracy on the new digits, and on the old ones before
and after, as means over paired seeds with 95 % intervals (Student's t) of the paired differences from plain
fine-tuning.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "services"))

import numpy as np
from digit_tasks import dense_classifier, few_labels
from scipy.stats import t

from trainables.backbones.spec import BackboneSpec
from trainables.methods.methods import begin
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

KINDS: tuple[tuple[str, float], ...] = (
    ("none", 0.0),
    *(("ewc", weight) for weight in (0.1, 1.0, 10.0)),
    *(("lwf", weight) for weight in (1.0, 10.0)),
    ("rehearsal", 1.0),
)


def open_bench(folder: Path) -> Workbench:
    """A workbench with the network, the new task and the old task."""
    raw = dense_classifier(folder / "dense.keras", range(5), epochs=40)
    load(BackboneSpec(str(raw))).save(folder / "backbone.keras")
    tasks = {}
    for name, digits, labels in (("new", range(5, 10), 20), ("old", range(5), 60)):
        data = few_labels(folder / f"{name}.parquet", digits, labels)
        tasks[name] = prepare(str(data), image_size=(8, 8), directory=folder / name).directory
    return Workbench.open(folder / "backbone.keras", tasks["new"], remember=lambda: tasks["old"])


def run(bench: Workbench, how: str, weight: float, seed: int, epochs: int) -> tuple[float, float, float]:
    """Train once; returns (new accuracy, old accuracy before, old accuracy after) on test images."""
    params: dict[str, Any] = {"unfreeze_depth": len(bench.backbone.blocks), "learning_rate": 0.01}
    params |= {"remembering": how, "remember_weight": weight}
    training = begin(TrialConfig("finetune", params, epochs=epochs, seed=seed, batch_size=16), bench)
    while not training.done:
        training.run_epoch()
    labels = bench.task.split("test").labels
    new = float((training.predict("test").argmax(axis=1) == labels).mean())
    old = training.old_task_metrics("test")
    training.release()
    return new, old["old_accuracy_before"], old["old_accuracy"]


def paired(values: np.ndarray, base: np.ndarray) -> str:
    """Mean and 95 % interval of a paired difference, in points."""
    difference = 100 * (values - base)
    half = t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    return f"{difference.mean():+.1f} ± {half:.1f}".replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description="What is forgotten, and what it costs to remember.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    began, found = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as folder:
        bench = open_bench(Path(folder))
        for kind in KINDS:
            found[kind] = np.array([run(bench, *kind, seed, given.epochs) for seed in range(given.seeds)])
            print(kind, found[kind].mean(axis=0).round(3), flush=True)
    base = found[KINDS[0]]
    print(f"\n{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {given.seeds} seeds, {time.monotonic() - began:.0f} s")
    print("\n| | new | over plain, points | old, before | old, after | over plain, points |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for (how, weight), rows in found.items():
        name = "plain fine-tuning" if how == "none" else f"`{how}`, w = {weight:g}"
        new, before, after = rows.mean(axis=0)
        gains = [paired(rows[:, i], base[:, i]) if how != "none" else "" for i in (0, 2)]
        print(f"| {name} | {new:.3f} | {gains[0]} | {before:.3f} | {after:.3f} | {gains[1]} |")


if __name__ == "__main__":
    main()
