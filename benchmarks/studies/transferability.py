"""Measure how well transferability scores predict tuned accuracy: rank correlations over backbones and tasks.

    python -m benchmarks.studies.transferability --output pairs.jsonl

Half of scikit-learn's digits is the source: small convolutional networks are pretrained on it with label sets that suit
the tasks well, partly, or not at all. The other half is the target of all tasks. The built-in backbone and untrained
networks compete as well. Each pair of backbone and task gets its scores, from training and validation images as in
``unfreeze score``, and its tuned accuracy: from a grid of unfreeze depths and learning rates, the trial with the best
validation accuracy is evaluated on test images, as a mean over seeds. Pairs that ``--output`` already contains are not
computed again. The tables cover the pairs of ``--tasks`` and ``--backbones``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.stats import rankdata, spearmanr, weightedtau
from sklearn.datasets import load_digits

from trainables.backbones.spec import BackboneSpec
from trainables.data.task import Task
from trainables.methods.methods import begin
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.modalities.image.print_backbone.architecture import build
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench
from trainables.transferability import (
    h_score,
    knn_accuracy,
    label_cka,
    leep,
    logme,
    mmd_test,
    nce,
    source_probabilities,
)
from trainables.transferability.leep import most_probable

SIZE = 32
WIDTHS = (8, 16, 24, 32)
SOURCE_IMAGES = 900
PER_DIGIT = {"train": 10, "validation": 20}
RATES = (1e-3, 1e-2)
SCORES = ("knn", "logme", "h_score", "label_cka", "leep", "nce", "mmd", "probe", "parameters")

Labels = Callable[[np.ndarray], np.ndarray]
"""Maps digits 0..9 to classes; −1 leaves an image out."""

LABELS: Mapping[str, tuple[Labels, int]] = {
    "ten": (lambda d: d, 0),
    "0–4": (lambda d: np.where(d < 5, d, -1), 0),
    "5–9": (lambda d: np.where(d >= 5, d - 5, -1), 0),
    "parity": (lambda d: d % 2, 0),
    "turned": (lambda d: d, 1),
    "chance": (lambda d: np.random.default_rng(1).integers(0, 10, len(d)), 0),
}
"""The label set and the number of quarter turns of the images."""

TASKS = ("ten", "5–9", "parity", "turned")
SOURCES = ("ten", "0–4", "parity", "turned", "chance")
BACKBONES = (*SOURCES, "untrained", "print", "print untrained")


def halves() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(images (N, 8, 8) uint8, digits (N,)) of source and target."""
    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    parts = order[:SOURCE_IMAGES], order[SOURCE_IMAGES:]
    source, target = ((images[rows], data.target[rows]) for rows in parts)
    return source, target


def labelled(name: str, images: np.ndarray, digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images and their classes in a label set."""
    classes, turns = LABELS[name]
    found = classes(digits)
    kept = found >= 0
    return np.rot90(images[kept], turns, axes=(1, 2)), found[kept]


def pixels(images: np.ndarray) -> np.ndarray:
    """Images of shape (N, 32, 32, 3) uint8, stretched as ``prepare`` does."""
    large = [np.asarray(Image.fromarray(i).resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for i in images]
    return np.repeat(np.stack(large)[..., None], 3, axis=-1)


def make_task(name: str, folder: Path, seed: int | None = None) -> Task:
    """The target half with the label set ``name``. ``seed`` determines the splits."""
    images, digits = halves()[1]
    if seed is not None:
        order = np.random.default_rng(seed).permutation(len(digits))
        images, digits = images[order], digits[order]
    return prepare_digits(name, images, digits, folder)


def prepare_digits(name: str, images: np.ndarray, digits: np.ndarray, folder: Path) -> Task:
    """Split the images: ten training and twenty validation images per digit, the others for the test."""
    images, classes = labelled(name, images, digits)
    digits = digits[LABELS[name][0](digits) >= 0]
    splits = np.full(len(classes), "test", dtype=object)
    for digit in np.unique(digits):
        rows, start = np.flatnonzero(digits == digit), 0
        for split, count in PER_DIGIT.items():
            splits[rows[start : start + count]] = split
            start += count
    return prepare_images(images, classes, splits, folder)


def prepare_images(images: np.ndarray, classes: np.ndarray, splits: np.ndarray, folder: Path) -> Task:
    """Prepare a task from grey ``images`` (N, H, W) uint8, ``classes`` (N,) and ``splits`` (N,)."""
    file = folder / "task.parquet"
    folder.mkdir(parents=True)
    content = {"image": [png(i) for i in images], "label": classes.astype(str), "split": splits.astype(str)}
    pq.write_table(pa.table(content), file)
    return prepare(str(file), image_size=(SIZE, SIZE), directory=folder / "prepared")


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "PNG")
    return file.getvalue()


def make_backbone(name: str, folder: Path, epochs: int) -> Path:
    """Save a backbone. If its name is a label set, it is pretrained for ``epochs`` on the source half."""
    import keras

    file, raw = folder / f"{name}.keras", folder / f"{name}-raw.keras"
    if name.startswith("print"):
        load(BackboneSpec("print", weights="none" if name.endswith("untrained") else "default")).save(file)
        return file
    keras.utils.set_random_seed(0)
    model = build(WIDTHS)
    if name in SOURCES:
        images, classes = labelled(name, *halves()[0])
        scores = keras.layers.Dense(int(classes.max()) + 1)(model.outputs[0])
        classifier = keras.Model(model.inputs[0], scores)
        classifier.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        classifier.fit(
            pixels(images).astype(np.float32), classes, batch_size=32, epochs=epochs, verbose=0, shuffle=True
        )
    model.save(raw)
    load(BackboneSpec(str(raw))).save(file)
    return file


def scores(bench: Workbench, name: str) -> dict[str, float]:
    """All scores of the pair. Higher is better for each (MMD² is negated)."""
    splits = ("train", "validation")
    features = np.concatenate([c for s in splits for c in bench.activations.chunks(s, 0)])
    labels = np.concatenate([bench.task.split(s).labels for s in splits])
    found = {
        "knn": knn_accuracy(features, labels),
        "logme": logme(features, labels),
        "h_score": h_score(features, labels),
        "label_cka": label_cka(features, labels),
        "parameters": float(bench.backbone.parameters),
    }
    if name in SOURCES:
        images, classes = labelled(name, *halves()[0])
        source = np.asarray(bench.backbone.model(pixels(images).astype(np.float32), training=False))
        theta = source_probabilities(source, classes, features)
        found |= {"leep": leep(theta, labels), "nce": nce(most_probable(theta), labels)}
        found["mmd"] = -mmd_test(source, features, permutations=1).squared
    return found


def tuned(bench: Workbench, depths: Sequence[int], epochs: int, seeds: int) -> dict[str, Any]:
    """Test accuracy of the best trial of the grid as a mean over seeds, and the accuracy with the frozen backbone."""
    labels = bench.task.split("test").labels
    found: dict[str, list[float]] = {"test": [], "depth": [], "probe": []}
    for seed in range(seeds):
        best, frozen = (-1.0, 0.0, 0), 0.0
        for depth in depths:
            for rate in RATES:
                params = {"unfreeze_depth": depth, "learning_rate": rate, "head_units": 0}
                training = begin(TrialConfig("finetune", params, epochs=epochs, seed=seed), bench)
                reached = max(training.run_epoch().val_accuracy for _ in range(epochs))
                if depth == 0:
                    frozen = max(frozen, reached)
                if reached > best[0]:
                    test = float((training.predict("test").argmax(axis=1) == labels).mean())
                    best = reached, test, depth
                training.release()
        for key, value in (("test", best[1]), ("depth", best[2]), ("probe", frozen)):
            found[key].append(float(value))
    return {
        "accuracy": float(np.mean(found["test"])),
        "spread": float(np.std(found["test"])),
        "depths": found["depth"],
        "probe": float(np.mean(found["probe"])),
    }


def correlations(pairs: Sequence[Mapping[str, Any]]) -> str:
    """For each score, the rank correlation with tuned accuracy over the backbones of a task, as a mean over tasks."""
    lines = [
        "| score | pairs | Kendall τ_w (least to most) | Spearman | choice by it, points below the best |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    pairs = [*with_mean_rank(pairs)]
    for score in (*SCORES, "mean rank"):
        groups = [[p for p in pairs if p["task"] == task and score in p] for task in tasks_of(pairs)]
        columns = [tuple(np.array([p[key] for p in g]) for key in (score, "accuracy")) for g in groups]
        columns = [column for column in columns if len(set(column[0])) > 2]
        if not columns:
            continue
        taus = [float(weightedtau(*column).statistic) for column in columns]
        rho = np.mean([float(spearmanr(*column).statistic) for column in columns])
        cost = np.mean([100 * float(a.max() - a[s.argmax()]) for s, a in columns])
        span = f"{signed(np.mean(taus))} ({signed(min(taus))} to {signed(max(taus))})"
        lines.append(f"| {score} | {sum(len(s) for s, _ in columns)} | {span} | {signed(rho)} | {cost:.1f} |")
    return "\n".join(lines)


def with_mean_rank(pairs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The pairs with their mean rank by k-NN, LogME and H-score among the backbones of their task."""
    for task in tasks_of(pairs):
        group = [p for p in pairs if p["task"] == task]
        ranks = [rankdata([p[score] for p in group]) for score in ("knn", "logme", "h_score")]
        for number, pair in enumerate(group):
            yield {**pair, "mean rank": float(np.mean([rank[number] for rank in ranks]))}


def signed(value: float) -> str:
    """Format a number with its sign, with a real minus sign."""
    return f"{value:+.2f}".replace("-", "−")


def tasks_of(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(p["task"] for p in pairs))


def matrix(pairs: Sequence[Mapping[str, Any]], value: str) -> str:
    """A table of one value of all pairs, with a row per backbone and a column per task."""
    tasks, rows = tasks_of(pairs), dict.fromkeys(p["backbone"] for p in pairs)
    lines = ["| backbone | " + " | ".join(tasks) + " |", "| --- |" + " ---: |" * len(tasks)]
    for name in rows:
        cells = {p["task"]: f"{p[value]:.3f}" for p in pairs if p["backbone"] == name}
        lines.append(f"| {name} | " + " | ".join(cells.get(task, "") for task in tasks) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Rank correlation of transferability scores with tuned accuracy."
    )
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=BACKBONES)
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 2, 4])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument(
        "--pretraining", type=int, default=12, help="epochs of pretraining of the small networks"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("transferability.jsonl"), help="appended to")
    given = parser.parse_args()
    done = (
        [json.loads(line) for line in given.output.read_text().splitlines()] if given.output.exists() else []
    )
    began, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place, given.output.open("a") as sink:
        folder = Path(place)
        tasks = {name: make_task(name, folder / f"task {name}") for name in given.tasks}
        for name in given.backbones:
            left = [t for t in given.tasks if (name, t) not in {(p["backbone"], p["task"]) for p in done}]
            file = make_backbone(name, folder, given.pretraining) if left else folder
            for task in left:
                bench = Workbench.open(file, tasks[task].directory)
                pair = {"backbone": name, "task": task} | scores(bench, name)
                pair |= tuned(bench, given.depths, given.epochs, given.seeds)
                done.append(pair)
                sink.write(json.dumps(pair, ensure_ascii=False) + "\n")
                sink.flush()
                print(f"{name} on {task}: k-NN {pair['knn']:.3f}, tuned {pair['accuracy']:.3f}", flush=True)
    kept = [p for p in done if p["backbone"] in given.backbones and p["task"] in given.tasks]
    seconds, now = time.monotonic() - began, os.getloadavg()[0]
    print(
        f"\n{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {len(kept)} pairs, {seconds:.0f} s, load {load:.0f} to {now:.0f}"
    )
    print("", correlations(kept), matrix(kept, "accuracy"), matrix(kept, "knn"), sep="\n\n")
    depths = Counter(int(depth) for p in kept for depth in p["depths"])
    print(f"\nbest depths: {dict(sorted(depths.items()))}")


if __name__ == "__main__":
    main()
