"""Fixtures for tests of training: pictures, folders of them, and the built-in backbone."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Draw = Callable[[int], Image.Image]
Encode = Callable[..., bytes]
Fill = Callable[[Path, Mapping[str, int]], Path]


@pytest.fixture
def odd_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name has spaces, quotes, umlauts, Chinese and a newline."""
    path = tmp_path_factory.mktemp("odd") / 'it\'s my "phötos" 字\nhere'
    path.mkdir()
    return path


@pytest.fixture
def draw() -> Draw:
    """A 12 x 12 RGB picture of its own for every number."""

    def draw(number: int) -> Image.Image:
        pixels = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    return draw


@pytest.fixture
def encode(draw: Draw) -> Encode:
    """The content of a picture's file."""

    def encode(number: int, kind: str = "png") -> bytes:
        file = io.BytesIO()
        draw(number).save(file, kind)
        return file.getvalue()

    return encode


@pytest.fixture
def fill(encode: Encode) -> Fill:
    """Write so many pictures into the sub-folders of a folder, no two alike in one test."""
    drawn = 0

    def fill(root: Path, counts: Mapping[str, int]) -> Path:
        nonlocal drawn
        for name, count in counts.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                (root / name / f"{number:03}.png").write_bytes(encode(drawn))
                drawn += 1
        return root

    return fill


@pytest.fixture(scope="session")
def print_bench(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """The built-in backbone and the digits, opened once."""
    from trainables.backbones.spec import BackboneSpec
    from trainables.modalities.image.backbones import load
    from trainables.modalities.image.datasets import prepare
    from trainables.training.workbench import Workbench

    folder: Path = tmp_path_factory.mktemp("bench ü")
    backbone = folder / "backbone.keras"
    load(BackboneSpec("print")).save(backbone)
    task = prepare("digits", image_size=(32, 32), directory=folder / "digits")
    return Workbench.open(backbone, task.directory)
