"""Same numbers with and without kept activations, for backbones of every kind, with random weights.

Tolerances, as shares of the spread between images or relative to a loss:

- a tensor at a cut, rounded to float16 at every cut below, against float32: 1 % with freshly drawn weights. Where batch
  normalisation has seen images, deep random networks blow up any difference (ResNet50: 170 times from the first cut to
  the last), so there it counts that all roundings together do no more than five times what the lowest alone does
- a higher cut computed from a lower one, or read from a file, against computed from the images: equal bit for bit
- losses of a trial on kept activations against the same trial on images: 0.1 %
"""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from trainables.activations.activations import ActivationCache
from trainables.activations.machine_speed import Rates
from trainables.backbones.backbone import Backbone
from trainables.backbones.keras_internals import all_layers
from trainables.backbones.spec import BackboneSpec
from trainables.methods.methods import begin
from trainables.modalities.image.backbones import load
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.slow

FAMILIES = {
    "MobileNetV2": 32,
    "MobileNetV3Small": 64,
    "EfficientNetB0": 64,
    "ResNet50": 32,
    "VGG16": 32,
    "DenseNet121": 32,
    "ConvNeXtTiny": 32,
}
FAST = Rates(1e12, 1e12, 1e12)
ROUNDING = 0.01
LOSSES = 1e-3


@dataclass(frozen=True)
class FastDisk:
    """A machine whose disk is so fast that everything is worth a file."""

    memory: Rates = FAST
    disk: Rates | None = FAST
    file_cache: int = 10**12
    min_seconds_for_file: float = 0.0


@dataclass(frozen=True)
class Images:
    images: np.ndarray
    labels: np.ndarray


class Blobs:
    """A task of two classes: bright on the left, bright on the right."""

    name, classes, digest = "blobs", ("left", "right"), "blobs"

    def __init__(self, size: int) -> None:
        self.counts = {"train": 40, "validation": 20, "test": 20}
        self._splits = {
            n: self._draw(count, size, seed) for seed, (n, count) in enumerate(self.counts.items())
        }

    def split(self, name: str) -> Images:
        return self._splits[name]

    def _draw(self, count: int, size: int, seed: int) -> Images:
        labels = np.arange(count) % 2
        images = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            half = slice(0, size // 2) if label else slice(size // 2, None)
            image[:, half] //= 4
        return Images(images, labels)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest) -> tuple[Backbone, Blobs]:
    """A backbone whose batch normalisation has seen images, so that its tensors are of a usual size; and a task."""
    backbone, task = _fresh(request.param)
    for layer in all_layers(backbone.model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    backbone.model(task.split("train").images.astype(np.float32), training=True)
    return backbone, task


def _fresh(name: str) -> tuple[Backbone, Blobs]:
    size = FAMILIES[name]
    return load(BackboneSpec(name, weights="none", input_size=size, seed=1)), Blobs(size)


def depths(backbone: Backbone) -> list[int]:
    most = len(backbone.blocks) - 1
    return sorted({0, 1, math.ceil(most / 2), most})


def share(found: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the difference, as a share of the spread between images."""
    spread = np.sqrt(np.mean((expected - expected.mean(axis=0)) ** 2))
    return float(np.sqrt(np.mean((found.astype(np.float32) - expected) ** 2)) / spread)


@pytest.mark.parametrize("name", FAMILIES)
def test_activations_equal_the_prefix_except_for_rounding(name: str) -> None:
    backbone, task = _fresh(name)
    activations, images = ActivationCache(backbone, task), task.split("train").images.astype(np.float32)
    for depth in depths(backbone):
        found = activations.get("train", depth)
        assert found is not None
        rounding = share(found, np.asarray(backbone.parts(depth)[0](images, training=False)))
        print(f"{name} depth {depth}: {found.dtype}, rounding {rounding:.3%} of the spread")
        assert rounding < ROUNDING


def test_rounding_at_every_cut_adds_little_to_rounding_at_the_lowest(pair: tuple[Backbone, Blobs]) -> None:
    backbone, task = pair
    images = task.split("train").images.astype(np.float32)
    prefix, suffix = backbone.parts(len(backbone.blocks) - 1)
    lowest = np.asarray(prefix(images, training=False))
    expected = np.asarray(suffix(lowest, training=False))
    once = share(np.asarray(suffix(lowest.astype(np.float16).astype(np.float32), training=False)), expected)
    found = ActivationCache(backbone, task).get("train", 0)
    assert found is not None
    assert found.dtype == np.float16
    print(f"{backbone.name}: rounded once {once:.3%}, at each cut {share(found, expected):.3%} of the spread")
    assert share(found, expected) < 5 * once


def test_files_and_lower_cuts_give_the_same_bits(pair: tuple[Backbone, Blobs], tmp_path: Path) -> None:
    backbone, task = pair
    high, *_, low = depths(backbone)
    direct = ActivationCache(backbone, task)
    filled, read = (
        ActivationCache(backbone, task, directory=tmp_path / "c", disk_budget=10**9, speeds=FastDisk())
        for _ in range(2)
    )
    filled.get("train", low, strength=0.5, view=1)
    derived = filled.get("train", high, strength=0.5, view=1)
    assert filled.derived == 1
    np.testing.assert_array_equal(derived, direct.get("train", high, strength=0.5, view=1))
    np.testing.assert_array_equal(derived, read.get("train", high, strength=0.5, view=1))
    assert (read.misses, read.hits) == (0, 1)
    assert read.notes == filled.notes == ()


@pytest.fixture(scope="module")
def benches(pair: tuple[Backbone, Blobs]) -> tuple[Workbench, Workbench]:
    """A workbench that keeps activations and one that has no room for any; each compiles once for all strengths."""
    backbone, task = pair
    kept, live = (
        Workbench(backbone, task, ActivationCache(backbone, task, budget=size)) for size in (2**30, 0)
    )
    return kept, live


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_trials_on_cached_activations_equal_trials_on_images(
    benches: tuple[Workbench, Workbench], strength: float
) -> None:
    params = {
        "unfreeze_depth": 1,
        "learning_rate": 1e-3,
        "head_units": 0,
        "augmentation_strength": strength,
        "dropout": 0.2,
    }
    found = []
    for bench, reuse in zip(benches, (True, False), strict=True):
        training = begin(TrialConfig("finetune", params, epochs=3, batch_size=16, seed=2), bench)
        assert training.decision.reuse is reuse
        metrics = [training.run_epoch() for _ in range(3)]
        training.release()
        found.append([number for m in metrics for number in (m.train_loss, m.val_loss)])
    np.testing.assert_allclose(found[0], found[1], rtol=LOSSES)


_SCRIPT = """
import sys
from pathlib import Path
from trainables.activations.activations import ActivationCache
from trainables.backbones.backbone import Backbone
from trainables.data.task import open_task

class Fast:
    from trainables.activations.machine_speed import Rates
    memory = disk = Rates(1e12, 1e12, 1e12)
    file_cache, min_seconds_for_file = 10**12, 0.0

backbone, task, cache = map(Path, sys.argv[1:])
activations = ActivationCache(
    Backbone.open(backbone), open_task(task), directory=cache, disk_budget=10**9, speeds=Fast()
)
array = activations.get("train", 1, strength=0.25, view=2)
print(activations.misses, activations.hits, array.astype("float64").sum())
"""


def test_two_processes_share_computed_activations(tmp_path: Path, print_bench: Workbench) -> None:
    print_bench.backbone.save(tmp_path / "backbone.keras")
    places: list[Any] = [tmp_path / "backbone.keras", print_bench.task.directory, tmp_path / "cache ü"]
    said = [
        subprocess.run(
            [sys.executable, "-c", _SCRIPT, *map(str, places)], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert [words[:2] for words in said] == [["1", "0"], ["0", "1"]]
    assert said[0][2] == said[1][2]
