"""Measure what a teacher is worth to a small network from random weights with few labels.

    python -m benchmarks.studies.distillation --output distillation.jsonl

scikit-learn's digits are drawn anew for each seed: 947 images for the teacher, 5 training images per class for the
student, 100 validation and 700 test images. The teacher is the built-in backbone, fine-tuned on its 947 images. The
student is a network of 4,000 weights that never sees those. Each way of training has two settings: two learning rates
for the student alone, two weights of the distillation loss for the others, at the student's better learning rate.
There is no augmentation, and the temperature is 4. Results that the output already contains are not computed again.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.studies.paired_seeds import Paired, note, read, table
from trainables.backbones.backbone import Backbone
from trainables.backbones.spec import BackboneSpec
from trainables.methods.methods import begin
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

SIZE = 32
WAYS: dict[str, dict[str, Any]] = {
    "target only": {"method": "finetune"},
    "relational": {"method": "distill", "distillation": "relational"},
    "plain": {"method": "distill", "distillation": "plain"},
    "both": {"method": "distill", "distillation": "both"},
}
ALONE: dict[str, dict[str, Any]] = {f"rate {rate:g}": {"learning_rate": rate} for rate in (1e-2, 3e-3)}
TAUGHT: dict[str, dict[str, Any]] = {
    f"weight {weight:g}": {"learning_rate": 1e-2, "distill_weight": weight} for weight in (1.0, 10.0)
}
PER_CLASS, VALIDATION, TEST = 5, 100, 700


def write_images(folder: Path, seed: int) -> None:
    """Write ``folder/student/SPLIT/CLASS/ROW.png`` and ``folder/teacher/CLASS/ROW.png``."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    train = [row for label in range(10) for row in order[digits.target[order] == label][:PER_CLASS]]
    rest = order[~np.isin(order, train)]
    parts = {
        "student/train": train,
        "student/validation": rest[:VALIDATION],
        "student/test": rest[VALIDATION : VALIDATION + TEST],
        "teacher": rest[VALIDATION + TEST :],
    }
    for part, rows in parts.items():
        for row in rows:
            file = folder / part / str(digits.target[row]) / f"{row}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = (digits.images[row] * 255 / 16).astype(np.uint8)
            Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGB").save(file)


def save_teacher(folder: Path, epochs: int) -> Path:
    """Fine-tune the built-in backbone on the teacher's digits and save it."""
    start = folder / "print.keras"
    load(BackboneSpec("print")).save(start)
    task = prepare(str(folder / "teacher"), image_size=(SIZE, SIZE), directory=folder / "teacher-task")
    bench = Workbench.open(start, task.directory)
    depth = len(bench.backbone.blocks)
    params = {"unfreeze_depth": depth, "learning_rate": 3e-3, "head_units": 0}
    training = begin(TrialConfig("finetune", params, epochs=epochs), bench)
    while not training.done:
        training.run_epoch()
    tuned = load(BackboneSpec("print"))
    _, suffix = tuned.parts(depth)
    assert suffix is not None
    suffix.set_weights(training.best_weights[:-2])
    file = folder / "tuned.keras"
    Backbone(tuned.spec, "print", "tuned on digits", tuned.model, tuned.starts).save(file)
    return file


def save_student(folder: Path, seed: int) -> Path:
    x = pixels = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 255)(x)
    for width in (8, 16, 16):
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        x = keras.layers.MaxPooling2D()(x)
    model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))
    model.save(folder / "net.keras")
    file = folder / "student.keras"
    load(BackboneSpec(str(folder / "net.keras"), weights="none", seed=seed)).save(file)
    return file


def opened(folder: Path, seed: int) -> Workbench:
    write_images(folder, seed)
    teacher = save_teacher(folder, epochs=4)
    task = prepare(str(folder / "student"), image_size=(SIZE, SIZE), directory=folder / "task").directory
    learned = Workbench.open(teacher, task)
    return Workbench.open(save_student(folder, seed), task, teacher=lambda: learned)


def run(bench: Workbench, way: str, setting: str, params: dict[str, Any], seed: int, epochs: int) -> Paired:
    params = {"unfreeze_depth": len(bench.backbone.blocks), "head_units": 0, **params}
    method = params.pop("method")
    training = begin(TrialConfig(method, params, epochs=epochs, seed=seed), bench)
    while not training.done:
        training.run_epoch()
    answers = training.predict("test").argmax(axis=1)
    training.release()
    assert training.best is not None
    test = float((answers == bench.task.split("test").labels).mean())
    return Paired(way, setting, seed, training.best.val_accuracy, test)


def main() -> None:
    parser = argparse.ArgumentParser(description="A student alone, and with a teacher.")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--output", type=Path, default=Path("distillation.jsonl"), help="appended to")
    given = parser.parse_args()
    known = {(r.way, r.setting, r.seed) for r in read(given.output)}
    probe = {"method": "finetune", "unfreeze_depth": 0, "learning_rate": 1e-6, "head_init": "probe"}
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as folder:
            bench = opened(Path(folder), seed)
            if ("teacher", "a probe", seed) not in known:
                note(given.output, run(bench.teacher, "teacher", "a probe", probe, seed, 1))
            for way, own in WAYS.items():
                for setting, params in (ALONE if way == "target only" else TAUGHT).items():
                    if (way, setting, seed) not in known:
                        note(given.output, run(bench, way, setting, {**params, **own}, seed, given.epochs))
        print(f"seed {seed} done: student of {bench.backbone.parameters:,} weights", flush=True)
    print(table(read(given.output), "target only"))


if __name__ == "__main__":
    main()
