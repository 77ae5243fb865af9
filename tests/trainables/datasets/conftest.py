"""Pictures and folders of them, in paths as odd as users have."""

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
