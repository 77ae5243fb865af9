"""Splits larger than the memory can be written and mapped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainables.data.split_file import open_split, write_split

IMAGES = 50_000
SIZE = 64

SCRIPT = """
import json, resource, sys
from pathlib import Path
from trainables.modalities.image.datasets import prepare

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

prepare("digits", image_size=(8, 8), directory=Path(sys.argv[2]) / "warm")
before = peak()
task = prepare(sys.argv[1], image_size=({size}, {size}), directory=Path(sys.argv[2]) / "out")
print(json.dumps({{"counts": dict(task.counts), "grown": peak() - before}}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux alone")
def test_fifty_thousand_images_in_little_memory(encode: Callable[..., bytes], tmp_path: Path) -> None:
    few = [encode(number) for number in range(500)]
    cells = pa.array([few[number % 500] for number in range(IMAGES)], pa.binary())
    labels = [f"class {number % 500 % 10}" for number in range(IMAGES)]
    pq.write_table(pa.table({"image": cells, "label": labels}), tmp_path / "many.parquet")
    command = [sys.executable, "-c", SCRIPT.format(size=SIZE), str(tmp_path / "many.parquet"), str(tmp_path)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    pixels = IMAGES * SIZE * SIZE * 3 / 2**20
    assert sum(result["counts"].values()) == IMAGES
    assert result["grown"] < pixels / 3, f"{result['grown']:.0f} MiB for {pixels:.0f} MiB of pixels"


@pytest.mark.slow
def test_a_split_of_more_than_two_gib(tmp_path: Path) -> None:
    count, size = 14_500, (224, 224)
    width = size[0] * size[1] * 3
    marked = {0: 1, 5_000: 2, count - 1: 3}
    with (tmp_path / "pixels").open("w+b") as pixels:
        pixels.truncate(count * width)
        for row, value in marked.items():
            pixels.seek(row * width)
            pixels.write(bytes([value]) * width)
    rows = np.arange(count, dtype=np.int64)[::-1].copy()
    with (tmp_path / "pixels").open("rb") as pixels:
        write_split(tmp_path / "big.arrow", pixels, rows, rows % 7, [str(row) for row in rows], size)
    split = open_split(tmp_path / "big.arrow", "train")
    (tmp_path / "big.arrow").unlink()
    assert split.images.nbytes > 2**31
    for place in (0, 1, count - 5_001, count - 1):
        assert np.unique(split.images[place]).tolist() == [marked.get(count - 1 - place, 0)]
    assert split.ids[count - 1] == "0"
    np.testing.assert_array_equal(split.labels, rows % 7)
