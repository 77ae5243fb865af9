"""Open the work that every contender gets. This imports nothing but NumPy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Workload:
    """A workload in ``folder``. ``frozen`` maps each unfreeze depth to the number of first layers that are frozen."""

    folder: Path
    configurations: tuple[dict[str, Any], ...]
    frozen: dict[int, int]
    epochs: int
    batch_size: int
    concurrent: int
    seed: int

    @property
    def images(self) -> Path:
        """The image folder."""
        return self.folder / "images"

    @property
    def arrays(self) -> Path:
        """The same images as arrays."""
        return self.folder / "images.npz"

    @property
    def backbone(self) -> Path:
        """The backbone's ``.keras`` file."""
        return self.folder / "backbone.keras"

    @property
    def enqueued(self) -> Path:
        """The configurations, one JSON object a line."""
        return self.folder / "configurations.jsonl"

    def load_arrays(self) -> dict[str, np.ndarray]:
        """``train_images`` (N, H, W, 3) uint8, ``train_labels`` (N,) int32, the same for validation and test."""
        with np.load(self.arrays) as kept:
            return dict(kept)

    @classmethod
    def open(cls, folder: Path) -> Workload:
        """Read what :func:`benchmarks.workloads.build_workload.make_workload` wrote."""
        values = json.loads((folder / "workload.json").read_text())
        values["frozen"] = {int(depth): count for depth, count in values["frozen"].items()}
        return cls(folder=folder, **{**values, "configurations": tuple(values["configurations"])})
