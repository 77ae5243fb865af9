"""Measure what earlier searches are worth to a new one: a related, an unrelated and an adversarial one, and none.

    python -m benchmarks.studies.warm_start --seeds 5 --output warm.jsonl

The new task is scikit-learn's ten digits with the built-in backbone, with ten training and twenty validation images
per digit. The earlier tasks use other images. *Related* are digits rotated by 90°. *Unrelated* are gratings in four
directions. *Adversarial* are digits as in the new task, but one minus the accuracy was reported to the search, so the
best configurations of its ledger are the worst that it could find, on a task that looks the same. Images are divided
anew for each seed. A search is a real one except for Ray Tune (:mod:`benchmarks.studies.search_in_process`): core
space, TPE, complete trials. The new search is the first ``--trials`` of a search of 24. Searches of one seed share
data and seed, so differences are paired. Searches that ``--output`` already contains are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.studies.search_in_process import Searched, bench_for_task, gain, search
from benchmarks.studies.transferability import SIZE, prepare_digits, prepare_images
from search.config.space import Space, core_space
from search.ledger.sampling.proposals import ProposalChain
from search.ledger.sampling.warm_start import first_configs, transferred_configs
from search.ledger.sampling.warm_start_prior import WarmStartPrior
from search.records.record import BackboneSummary, SearchRecord, TaskSummary
from trainables.backbones.spec import BackboneSpec
from trainables.data.task import Task
from trainables.modalities.image.backbones import load
from trainables.training.workbench import Workbench

EARLIER = ("related", "unrelated", "adversarial")
AFTER = (1, 2, 4, 8, 16)
WHOLE = 24
"""Planned trials of the new search, of which only the first ones are run."""

DIRECTIONS, GRATINGS = 4, {"train": 40, "validation": 20, "test": 10}


def halves(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(images (N, 8, 8) uint8, digits (N,)) for the earlier tasks and for the new one."""
    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(seed).permutation(len(images))
    return [(images[rows], data.target[rows]) for rows in np.array_split(order, 2)]


def gratings(seed: int, folder: Path) -> Task:
    """Noisy waves in four directions with random phases and wavelengths."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    images, classes, splits = [], [], []
    for split, count in GRATINGS.items():
        for direction in np.repeat(np.arange(DIRECTIONS), count):
            angle = np.pi * direction / DIRECTIONS + rng.normal(0, 0.1)
            wave = np.sin(
                (x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(0.4, 1.2) + rng.uniform(0, 2 * np.pi)
            )
            noisy = 128 + 50 * wave + rng.normal(0, 50, wave.shape)
            images.append(np.clip(noisy, 0, 255).astype(np.uint8))
            classes.append(direction)
            splits.append(split)
    order = rng.permutation(len(images))
    named = np.array([f"direction {c}" for c in classes])
    return prepare_images(np.stack(images)[order], named[order], np.array(splits)[order], folder)


def make_task(kind: str, seed: int, folder: Path) -> Task:
    """The ``new`` task, or the task of an earlier search."""
    earlier, new = halves(seed)
    if kind == "new":
        return prepare_digits("ten", *new, folder)
    if kind == "unrelated":
        return gratings(seed, folder)
    return prepare_digits("turned" if kind == "related" else "ten", *earlier, folder)


def task_summary(name: str, task: Task) -> TaskSummary:
    return TaskSummary(name, task.digest, task.classes, dict(task.counts), (SIZE, SIZE), "here")


class Bench:
    """Workbenches of one backbone for several tasks. Tasks with equally many classes share compiled programs."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._opened: dict[int, Workbench] = {}
        backbone = load(BackboneSpec("print"))
        backbone.save(file)
        names = tuple(str(number) for number in range(len(backbone.blocks)))
        self.summary = BackboneSummary("print", "default", "print", (SIZE, SIZE), backbone.parameters, names)
        self.space: Space = core_space(len(names))

    def on(self, task: Task) -> dict[str | None, Workbench]:
        classes = len(task.classes)
        if classes not in self._opened:
            self._opened[classes] = Workbench.open(self.file, task.directory)
        return {None: bench_for_task(self._opened[classes], task)}


def run(given: argparse.Namespace, known: Sequence[tuple[int, str]]) -> Iterator[dict[str, Any]]:
    """Run the missing searches: without an earlier search, and after each earlier search."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        bench = Bench(folder / "print.keras")
        own: dict[str | None, BackboneSummary] = {None: bench.summary}
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            arms = [arm for arm in ("cold", *EARLIER) if (seed, arm) not in known]
            if not arms:
                continue
            new = make_task("new", seed, folder / f"new {seed}")
            for arm in arms:
                began = time.monotonic()
                found, record = None, None
                if arm != "cold":
                    task = make_task(arm, seed, folder / f"{arm} {seed}")
                    told = (lambda accuracy: 1.0 - accuracy) if arm == "adversarial" else float
                    before = search(
                        bench.on(task), bench.space, given.earlier, given.epochs, 500 + seed, told=told
                    )
                    record = earlier(arm, task, bench.summary, before)
                    found = transferred_configs([record], bench.space, task_summary("new", new), own)
                guides = ProposalChain([WarmStartPrior(found, bench.space, "maximize")] if found else [])
                few = first_configs(found, WHOLE) if found else []
                done = search(bench.on(new), bench.space, given.trials, given.epochs, seed, guides, few)
                yield {
                    "seed": seed,
                    "arm": arm,
                    "best": done.best,
                    "tests": done.tests,
                    "values": [t.value for t in done.trials],
                    "params": [dict(t.params) for t in done.trials],
                    "origins": [t.origin for t in done.trials],
                    "similarity": found[0].similarity if found else None,
                    "earlier": [t.value for t in record.trials] if record else None,
                    "seconds": round(time.monotonic() - began, 1),
                }


def earlier(name: str, task: Task, backbone: BackboneSummary, found: Searched) -> SearchRecord:
    """What a new search reads from the ledger of an earlier one."""
    about = task_summary(name, task)
    config = {"method": "finetune"}
    return SearchRecord(
        name, "val_accuracy", "maximize", about, backbone, config, found.trials, len(found.trials)
    )


def curves(done: Sequence[Mapping[str, Any]], arm: str, what: str) -> np.ndarray:
    """Best values (seeds, trials) of an arm."""
    return np.array([d[what] for d in sorted(done, key=lambda d: d["seed"]) if d["arm"] == arm])


def table(done: Sequence[Mapping[str, Any]], what: str) -> str:
    """Print the best value so far after a cold start, and the difference that each earlier search makes."""
    after = [k for k in AFTER if k <= len(done[0]["best"])]
    lines = ["| earlier search | " + " | ".join(f"after {k}" for k in after) + " | taken over |"]
    lines += ["| --- |" + " ---: |" * (len(after) + 1)]
    cold = curves(done, "cold", what)
    lines += ["| none | " + " | ".join(f"{cold[:, k - 1].mean():.3f}" for k in after) + " | |"]
    for arm in EARLIER:
        own = curves(done, arm, what)
        cells = [gain(own[:, k - 1].tolist(), cold[:, k - 1].tolist()) for k in after]
        taken = np.mean([sum(bool(o) for o in d["origins"]) for d in done if d["arm"] == arm])
        lines += [f"| {arm} | " + " | ".join(cells) + f" | {taken:.1f} |"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What earlier searches are worth to a new one.")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--earlier", type=int, default=16, help="number of trials of the earlier searches")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("warm.jsonl"), help="appended to")
    given = parser.parse_args()
    lines = given.output.read_text().splitlines() if given.output.exists() else []
    done = [json.loads(line) for line in lines]
    with given.output.open("a") as sink:
        for found in run(given, [(d["seed"], d["arm"]) for d in done]):
            done.append(found)
            sink.write(json.dumps(found) + "\n")
            sink.flush()
            print(found["seed"], found["arm"], f"{found['best'][-1]:.3f}", found["seconds"], flush=True)
    arms = ("cold", *EARLIER)
    whole = [s for s in {d["seed"] for d in done} if {d["arm"] for d in done if d["seed"] == s} == {*arms}]
    kept = [d for d in done if d["seed"] in whole]
    print(f"\n{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {len(whole)} seeds")
    for what in ("best", "tests"):
        print("", "validation" if what == "best" else "test", "", table(kept, what), sep="\n")


if __name__ == "__main__":
    main()
