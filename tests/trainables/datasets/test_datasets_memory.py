"""Fifty thousand images don't need their RAM."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

IMAGES = 50_000
SIZE = 64

SCRIPT = """
import json, resource, sys
from pathlib import Path
from trainables.datasets import prepare

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
