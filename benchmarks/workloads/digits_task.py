"""Provide the built-in task and backbone as a workload, so that a peer trains on the images of unfreeze."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np

from benchmarks.workloads.saved_backbones import blocks_of
from benchmarks.workloads.workload import Workload
from trainables.backbones.spec import BackboneSpec
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare


def make_digits(folder: Path, epochs: int, seed: int, concurrent: int = 2, batch_size: int = 32) -> Workload:
    """Write the arrays of the task ``digits`` and the backbone ``print`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    size = load(BackboneSpec()).input_size
    task = prepare("digits", image_size=size, directory=folder / "task")
    work = Workload(folder, (), {}, epochs, batch_size, concurrent, seed)
    work.backbone.write_bytes(
        resources.files("trainables.modalities.image.print_backbone").joinpath("print.keras").read_bytes()
    )
    kept: dict[str, np.ndarray] = {}
    for split in ("train", "validation"):
        found = task.split(split)
        kept[f"{split}_images"] = np.array(found.images)
        kept[f"{split}_labels"] = found.labels.astype(np.int32)
    np.savez(work.arrays, **kept)
    values = {"configurations": [], "frozen": blocks_of(work.backbone), "epochs": epochs}
    values |= {"batch_size": batch_size, "concurrent": concurrent, "seed": seed}
    (folder / "workload.json").write_text(json.dumps(values))
    return Workload.open(folder)
