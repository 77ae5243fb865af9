"""Measure what a linear probe as the initial head is worth (LP-FT), compared with a random head, at every depth.

    python -m benchmarks.studies.head_initialisation --epochs 5 --output 5.jsonl

The built-in task and backbone (100 training images), a linear head, no augmentation. Each combination of depth,
learning rate and seed is trained from both initial heads. A seed controls the training: order of the images, random
head. For each depth and initial head the script takes the learning rate with the best mean validation accuracy. It
prints the test accuracy over the seeds, at the epoch with the best validation accuracy, and the paired difference with
its 95 % interval (Student's t).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from scipy.stats import t as student

from trainables.backbones.spec import BackboneSpec
from trainables.methods.finetune import HEAD_INITS
from trainables.methods.methods import begin
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

RATES = (3e-4, 1e-3, 3e-3, 1e-2)


@dataclass(frozen=True)
class Outcome:
    """The accuracies of one trial. ``first`` is the validation accuracy after one epoch; ``probe`` is in seconds."""

    epochs: int
    depth: int
    rate: float
    init: str
    seed: int
    first: float
    validation: float
    test: float
    probe: float


def run(bench: Workbench, epochs: int, depth: int, rate: float, init: str, seed: int) -> Outcome:
    params = {"unfreeze_depth": depth, "learning_rate": rate, "head_units": 0, "head_init": init}
    training = begin(TrialConfig("finetune", params, epochs=epochs, seed=seed), bench)
    curve = [training.run_epoch().val_accuracy for _ in range(epochs)]
    labels = bench.task.split("test").labels
    test = float((training.predict("test").argmax(axis=1) == labels).mean())
    training.release()
    return Outcome(
        epochs, depth, rate, init, seed, curve[0], max(curve), test, training.stage_seconds.get("probe", 0.0)
    )


def alone(bench: Workbench) -> str:
    """Accuracy of the probe before anything else is trained."""
    params = {"unfreeze_depth": 0, "learning_rate": 1e-3, "head_units": 0, "head_init": "probe"}
    training = begin(TrialConfig("finetune", params), bench)
    training.before_first_epoch()
    found = {split: round(training.evaluate(split)[1], 3) for split in ("validation", "test")}
    training.release()
    return str(found)


def best(outcomes: list[Outcome]) -> list[Outcome]:
    """The outcomes by seed at the learning rate with the best mean validation accuracy."""
    rates = sorted({o.rate for o in outcomes})
    means = {r: float(np.mean([o.validation for o in outcomes if o.rate == r])) for r in rates}
    rate = max(rates, key=lambda r: means[r])
    return sorted((o for o in outcomes if o.rate == rate), key=lambda o: o.seed)


def difference(ours: Iterable[float], theirs: Iterable[float]) -> str:
    """Mean and 95 % interval of paired differences, in points."""
    values = 100 * (np.array(list(ours)) - np.array(list(theirs)))
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.1f} ({values.mean() - half:+.1f} to {values.mean() + half:+.1f})"


def at_best_rates(outcomes: list[Outcome]) -> None:
    print(
        "| epochs | depth | start | learning rate | after one epoch | validation | test | difference, points |"
    )
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for epochs, depth in sorted({(o.epochs, o.depth) for o in outcomes}):
        here = [o for o in outcomes if (o.epochs, o.depth) == (epochs, depth)]
        ways = [best([o for o in here if o.init == init]) for init in HEAD_INITS]
        gains = ["", difference([o.test for o in ways[1]], [o.test for o in ways[0]])]
        for way, gain in zip(ways, gains, strict=True):
            first, validation = (np.mean([getattr(o, n) for o in way]) for n in ("first", "validation"))
            test = np.array([o.test for o in way])
            print(
                f"| {epochs} | {depth} | {way[0].init} | {way[0].rate:g} | {first:.3f} | {validation:.3f} "
                f"| {test.mean():.3f} ± {test.std(ddof=1):.3f} | {gain} |"
            )


def at_each_rate(outcomes: list[Outcome]) -> None:
    print("\n| epochs | depth | " + " | ".join(f"{rate:g}" for rate in RATES) + " |")
    print("| ---: " * (2 + len(RATES)) + "|")
    for epochs, depth in sorted({(o.epochs, o.depth) for o in outcomes}):
        cells = []
        for rate in RATES:
            here = [o for o in outcomes if (o.epochs, o.depth, o.rate) == (epochs, depth, rate)]
            here.sort(key=lambda o: o.seed)
            random, probe = ([o.test for o in here if o.init == init] for init in HEAD_INITS)
            cells.append(difference(probe, random))
        print(f"| {epochs} | {depth} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Heads from random weights and heads from one probe.")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("shared_start.jsonl"), help="appended to")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "backbone.keras"
        load(BackboneSpec("print")).save(file)
        task = prepare("digits", image_size=(32, 32), directory=Path(folder) / "task")
        bench = Workbench.open(file, task.directory)
        print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load {os.getloadavg()[0]:.1f}, {dict(task.counts)}")
        with given.output.open("a") as sink:
            for depth in range(1, len(bench.backbone.blocks) + 1):
                for rate in RATES:
                    for seed in range(given.seeds):
                        for init in HEAD_INITS:
                            outcome = run(bench, given.epochs, depth, rate, init, seed)
                            sink.write(json.dumps(asdict(outcome)) + "\n")
                sink.flush()
                print(f"depth {depth} done, load {os.getloadavg()[0]:.1f}", flush=True)
        print(f"probes trained: {bench.probes.trained}; alone: {alone(bench)}")
    outcomes = [Outcome(**json.loads(line)) for line in given.output.read_text().splitlines()]
    at_best_rates(outcomes)
    at_each_rate(outcomes)


if __name__ == "__main__":
    main()
