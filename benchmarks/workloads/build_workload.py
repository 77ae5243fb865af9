"""Create a workload: images, a backbone, configurations, and the settings that all trials share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.workloads.configurations import depth_of, design
from benchmarks.workloads.digit_images import Counts, write_digit_images
from benchmarks.workloads.saved_backbones import blocks_of, save_backbone
from benchmarks.workloads.workload import Workload


@dataclass(frozen=True)
class WorkloadSpec:
    """The specification of a workload.

    ``pretraining`` is the number of epochs on the digits that are in no split.
    :func:`benchmarks.workloads.configurations.depth_of` reads ``depths``.
    """

    backbone: str = "MobileNetV2"
    size: int = 32
    pretraining: int = 10
    options: tuple[tuple[str, Any], ...] = ()
    counts: Counts = field(default_factory=Counts)
    depths: tuple[str, ...] = ("0", "1", "1/4", "1/2")
    strengths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    trials: int = 48
    epochs: int = 5
    batch_size: int = 32
    concurrent: int = 2
    seed: int = 0


def make_workload(folder: Path, asked: WorkloadSpec) -> Workload:
    """Write images, backbone and configurations into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Workload(folder, (), {}, asked.epochs, asked.batch_size, asked.concurrent, asked.seed)
    images, labels = write_digit_images(place.images, place.arrays, asked.size, asked.counts, asked.seed)
    options = dict(asked.options)
    save_backbone(asked.backbone, asked.size, place.backbone, images, labels, asked.pretraining, **options)
    frozen = blocks_of(place.backbone)
    depths = [depth_of(share, max(frozen)) for share in asked.depths]
    configurations = design(asked.trials, depths, asked.strengths, asked.seed)
    place.enqueued.write_text("".join(json.dumps(c) + "\n" for c in configurations))
    values = asdict(place) | {"configurations": configurations, "frozen": frozen}
    del values["folder"]
    (folder / "workload.json").write_text(json.dumps(values))
    return Workload.open(folder)
