"""Makes a workload: images, a backbone, configurations, and what is fixed for all trials."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from designs import depth_of, design
from digit_images import Counts, write_digit_images
from random_backbone import blocks_of, save_random_backbone
from workload import Workload


@dataclass(frozen=True)
class Asked:
    """What a workload is made from. ``depths`` as :func:`designs.depth_of` reads them."""

    backbone: str = "MobileNetV2"
    size: int = 32
    options: tuple[tuple[str, Any], ...] = ()
    counts: Counts = field(default_factory=Counts)
    depths: tuple[str, ...] = ("0", "1", "1/4", "1/2")
    strengths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    trials: int = 48
    epochs: int = 5
    batch_size: int = 32
    concurrent: int = 2
    seed: int = 0


def make_workload(folder: Path, asked: Asked) -> Workload:
    """Write images, backbone and configurations into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Workload(folder, (), {}, asked.epochs, asked.batch_size, asked.concurrent, asked.seed)
    write_digit_images(place.images, place.arrays, asked.size, asked.counts, asked.seed)
    sample = place.load_arrays()["train_images"][:256]
    save_random_backbone(asked.backbone, asked.size, place.backbone, sample, **dict(asked.options))
    frozen = blocks_of(place.backbone)
    depths = [depth_of(share, max(frozen)) for share in asked.depths]
    configurations = design(asked.trials, depths, asked.strengths, asked.seed)
    place.enqueued.write_text("".join(json.dumps(c) + "\n" for c in configurations))
    values = asdict(place) | {"configurations": configurations, "frozen": frozen}
    del values["folder"]
    (folder / "workload.json").write_text(json.dumps(values))
    return Workload.open(folder)
