"""Measure what training heads together saves: the same 32 trials one by one, in threads, and fused.

    python -m benchmarks.scaling.fused_heads

Everything runs in one process: MobileNetV2 with random weights at 32 pixels (1280 features), 600 training and 151
validation images of handwritten digits, 20 epochs, batches of 32, and different learning rates and seeds. Wall-clock
seconds cover training and evaluation, with everything compiled and all activations computed beforehand. They are
medians over the repetitions, which alternate between the ways. Processor seconds are printed as well, because they are
more reliable on a busy machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from trainables.backbones.backbone import Backbone
from trainables.backbones.spec import BackboneSpec
from trainables.compiled.program import Program
from trainables.compiled.shapes import ProgramShape
from trainables.data.inputs.options import DataOptions
from trainables.methods.methods import begin
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

TASK = DataOptions(validation_fraction=151 / 1797, test_fraction=1046 / 1797)


class OwnPrograms(Workbench):
    """Gives each trial its own compiled program, as trials have that train more than a head."""

    def take(self, shape: ProgramShape, train: str, evaluate: str) -> tuple[Program, float]:
        return self.acquire_own_program(shape, train, evaluate)


def write_digits(folder: Path) -> Path:
    """Write all of scikit-learn's handwritten digits as an image folder."""
    data = load_digits()
    for number, (pixels, digit) in enumerate(zip(data.images, data.target, strict=True)):
        place = folder / str(digit)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(place / f"{number:04d}.png")
    return folder


def trials(count: int, units: int, epochs: int) -> list[TrialConfig]:
    return [
        TrialConfig(
            "finetune",
            {"unfreeze_depth": 0, "learning_rate": 1e-4 * 1.2**seed, "head_units": units},
            epochs=epochs,
            seed=seed,
        )
        for seed in range(count)
    ]


def train(bench: Workbench, config: TrialConfig) -> None:
    training = begin(config, bench)
    while not training.done:
        training.run_epoch()
    training.release()


def in_threads(bench: Workbench, configs: list[TrialConfig], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda config: train(bench, config), configs))


def timed(run: Callable[[], None]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor


def compare(own: Workbench, shared: Workbench, configs: list[TrialConfig], repetitions: int) -> None:
    cores = os.cpu_count() or 1
    ways: dict[str, Callable[[], None]] = {
        "own programs, one after another": lambda: in_threads(own, configs, 1),
        f"own programs, {cores} threads": lambda: in_threads(own, configs, cores),
        "shared program, one after another": lambda: in_threads(shared, configs, 1),
        **{
            f"shared program, {n} at once": lambda n=n: in_threads(shared, configs, n)  # type: ignore[misc]
            for n in (8, len(configs))
        },
    }
    for way in ways.values():
        way()  # the first call compiles
    found = {name: [timed(way)] for name, way in ways.items()}
    for _ in range(repetitions - 1):
        for name, way in ways.items():
            found[name].append(timed(way))
    first = [median(column) for column in zip(*next(iter(found.values())), strict=True)]
    for name, pairs in found.items():
        wall, processor = (median(column) for column in zip(*pairs, strict=True))
        print(
            f"  {name:36} {wall:7.2f} s  {first[0] / wall:5.2f}x   "
            f"processor {processor:7.2f} s  {first[1] / processor:5.2f}x"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Head-only trials alone and fused.")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "backbone.keras"
        load(BackboneSpec("MobileNetV2", weights="none", input_size=32)).save(file)
        backbone = Backbone.open(file)
        images = write_digits(Path(folder) / "digits")
        task = prepare(str(images), image_size=(32, 32), directory=Path(folder) / "task", options=TASK)
        shared = Workbench.open(file, task.directory)
        own = OwnPrograms(backbone, shared.task, shared.activations)
        print(
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {platform.machine()}, {os.cpu_count()} cores, "
            f"load {os.getloadavg()[0]:.1f}; {given.trials} trials, {given.epochs} epochs, "
            f"{shared.task.counts['train']} images, medians of {given.repetitions}"
        )
        for units in (0, 128):
            head = f"1280 -> {units} -> 10" if units else "1280 -> 10"
            print(f"{head} (load {os.getloadavg()[0]:.1f})")
            compare(own, shared, trials(given.trials, units, given.epochs), given.repetitions)
            sizes = next(t.batches for s, t in shared._heads.items() if s.units == units)
            print(f"  trials a batch: {dict(sorted(sizes.items()))}; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
