"""Measure how many optimizer steps trials of small data need, and from when on they can be compared.

    python -m benchmarks.studies.training_length --epochs 12 24 48 --output training_length.jsonl

Random configurations of the core space are trained to their end with each number of epochs, on the task ``digits`` of
:mod:`benchmarks.studies.early_stopping`, with the built-in backbone and heads that start from the probe (or at random).
The tables show their test accuracy, and for several shares of the training the rank correlation of the validation
accuracy at that point with the learning rate and with the test accuracy in the end. A good first rung has a correlation
with the learning rate that is no stronger than that of the final accuracy. Trainings that ``--output`` already contains
are not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from scipy.stats import spearmanr

from benchmarks.studies.early_stopping import write_task
from trainables.backbones.spec import BackboneSpec
from trainables.methods.methods import begin
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

BATCH_SIZE = 32
SHARES = (0.05, 0.1, 0.2, 1 / 3, 0.5, 1.0)


def configurations(
    count: int,
    seed: int,
    depths: tuple[int, int] = (0, 4),
    rates: tuple[float, float] = (-4, -1.5),
    strengths: Sequence[float] = (0, 0.25, 0.5, 0.75, 1),
) -> list[dict[str, Any]]:
    """Return random parameters; the defaults are the ranges of the core space.

    Args:
        count: number of configurations.
        seed: of the random numbers.
        depths: lowest and highest number of unfrozen blocks.
        rates: decimal logarithms of the lowest and the highest learning rate.
        strengths: of augmentation.
    """
    generator = np.random.default_rng(seed)
    return [
        {
            "unfreeze_depth": int(generator.integers(depths[0], depths[1] + 1)),
            "learning_rate": float(10 ** generator.uniform(*rates)),
            "head_units": int(generator.choice([0, 64, 128, 256])),
            "augmentation_strength": float(generator.choice(strengths)),
        }
        for _ in range(count)
    ]


def run(bench: Workbench, params: dict[str, Any], epochs: int, init: str, seed: int) -> dict[str, Any]:
    """Train to the last epoch; return the curve and the test accuracy of the best epoch."""
    config = TrialConfig("finetune", params, epochs=epochs, batch_size=BATCH_SIZE, seed=seed, head_init=init)
    training = begin(config, bench)
    curve = [training.run_epoch().val_accuracy for _ in range(epochs)]
    answers = training.predict("test").argmax(axis=1)
    training.release()
    return {"curve": curve, "test": float((answers == bench.task.split("test").labels).mean())}


def tables(done: Sequence[dict[str, Any]], steps: int) -> str:
    """One table of accuracies, one of rank correlations; ``steps`` is the number in an epoch."""
    lengths = sorted({d["epochs"] for d in done})
    lines = [
        "| epochs | steps | trainings | test, mean | best third by test | chosen by validation |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for epochs in lengths:
        runs = [d for d in done if d["epochs"] == epochs]
        tests = np.array([d["test"] for d in runs])
        best = np.sort(tests)[-max(1, len(tests) // 3) :].mean()
        chosen = tests[int(np.argmax([max(d["curve"]) for d in runs]))]
        lines.append(
            f"| {epochs} | {epochs * steps} | {len(runs)} | {tests.mean():.3f} | {best:.3f} | {chosen:.3f} |"
        )
    lines += ["", "| epochs | share of the training | with the learning rate | with the test accuracy |"]
    lines += ["| ---: | ---: | ---: | ---: |"]
    for epochs in lengths:
        runs = [d for d in done if d["epochs"] == epochs]
        rates, tests = [d["rate"] for d in runs], [d["test"] for d in runs]
        for share in SHARES:
            values = [d["curve"][max(1, math.ceil(share * epochs - 1e-9)) - 1] for d in runs]
            by_rate, by_test = (spearmanr(values, other).statistic for other in (rates, tests))
            lines.append(f"| {epochs} | {share:.2f} | {by_rate:+.2f} | {by_test:+.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="How long trials of small data have to train.")
    parser.add_argument("--epochs", type=int, nargs="+", default=[12, 24, 48])
    parser.add_argument("--labels", type=int, default=10, help="training images per class")
    parser.add_argument("--configurations", type=int, default=12)
    parser.add_argument("--head-init", choices=("probe", "random"), default="probe")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("training_length.jsonl"), help="appended to")
    given = parser.parse_args()
    done = (
        [json.loads(line) for line in given.output.read_text().splitlines()] if given.output.exists() else []
    )
    known = {(d["epochs"], d["number"]) for d in done}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        load(BackboneSpec("print")).save(folder / "backbone.keras")
        data = write_task("digits", folder / "digits.parquet", given.labels, given.seed)
        task = prepare(str(data), image_size=(32, 32), directory=folder / "task")
        bench = Workbench.open(folder / "backbone.keras", task.directory)
        for epochs in given.epochs:
            for number, params in enumerate(configurations(given.configurations, given.seed)):
                if (epochs, number) in known:
                    continue
                found = run(bench, params, epochs, given.head_init, 100 + number)
                done.append({"epochs": epochs, "number": number, "rate": params["learning_rate"], **found})
                with given.output.open("a") as sink:
                    sink.write(json.dumps(done[-1]) + "\n")
        print(tables(done, math.ceil(task.counts["train"] / BATCH_SIZE)))


if __name__ == "__main__":
    main()
