"""Measure time and memory with more images. Time should grow with their number, memory should not.

    python -m benchmarks.scaling.data_growth --images 1000 10000 50000

The images are scikit-learn's handwritten digits, each rotated, shifted and brightened at random, as PNG files of 32
pixels (or as a Parquet file with ``--form parquet``). They pass through the built-in backbone. Preparation and training
run in separate processes. Memory is the largest amount that the process held for itself (``RssAnon``, sampled every few
milliseconds). Pages of mapped files are listed separately, because the system can reclaim them. Seconds are wall-clock
seconds and, in brackets, processor seconds, which are more reliable on a busy machine. The activations are those of the
training images above all blocks (depth 0) and below the top two (depth 2). Each epoch trains and validates once.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

SIZE = 32
ROWS = (
    ("preparing, s", "prepare", 1),
    ("preparing, images/s", "prepare_rate", 0),
    ("preparing, memory, MB", "prepare_memory", 0),
    ("prepared, MB on disk", "task_bytes", 1),
    ("activations at depth 0, s", "activations_0", 2),
    ("activations at depth 2, s", "activations_2", 2),
    ("activations, MB on disk", "cache_bytes", 1),
    ("activations, MB in memory", "kept_bytes", 1),
    ("epoch at depth 0, s", "epoch_0", 2),
    ("epoch at depth 2, s", "epoch_2", 2),
    ("epoch at depth 2 on images, s", "epoch_live", 2),
    ("engine, memory when open, MB", "engine_open", 0),
    ("engine, memory at most, MB", "engine_memory", 0),
    ("engine, mapped pages beside it, MB", "engine_mapped", 0),
)


def digits(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield (class, PNG file) of ``count`` images."""
    data, draw = load_digits(), np.random.default_rng(seed)
    for number in range(count):
        row = number % len(data.target)
        image = Image.fromarray(np.rint(data.images[row] * (200 / 16)).astype(np.uint8))
        angle, x, y = draw.uniform((-15, -2, -2), (15, 2, 2))
        turned = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR).rotate(
            angle, translate=(int(x), int(y))
        )
        noisy = np.asarray(turned) + draw.integers(0, 40, (SIZE, SIZE), np.uint8)
        file = io.BytesIO()
        Image.fromarray(noisy).save(file, "PNG", compress_level=1)
        yield str(data.target[row]), file.getvalue()


def write(folder: Path, count: int, form: str) -> Path:
    """Write the images as a folder or a Parquet file and return its path."""
    if form == "parquet":
        labels, images = zip(*digits(count), strict=True)
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"image": images, "label": labels}), folder / "digits.parquet")
        return folder / "digits.parquet"
    for number, (digit, content) in enumerate(digits(count)):
        place = folder / digit
        if number < 2000:
            place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:06d}.png").write_bytes(content)
    return folder


class Memory:
    """Largest memory of this process in bytes: its own (``anonymous``) and that of mapped files."""

    def __init__(self) -> None:
        self.anonymous = self.mapped = 0

    def look(self) -> int:
        """Update the largest values; returns the process's own bytes now."""
        held = dict.fromkeys(("RssAnon", "RssFile", "RssShmem"), 0)
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in held:
                held[name] = int(value.split()[0]) * 1024
        self.anonymous = max(self.anonymous, held["RssAnon"])
        self.mapped = max(self.mapped, held["RssFile"] + held["RssShmem"])
        return held["RssAnon"]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sample the memory every few milliseconds while the block runs."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.005):
                self.look()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def seconds(name: str, call: Callable[[], Any]) -> dict[str, float]:
    """Wall-clock seconds and processor seconds of ``call``."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return {name: time.perf_counter() - wall, f"{name}_processor": time.process_time() - processor}


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def prepare_alone(data: Path, task: Path) -> dict[str, float]:
    """Prepare the task. Runs in a separate process."""
    from trainables.modalities.image.datasets import prepare

    memory = Memory()
    before = memory.look()
    with memory.watched():
        taken = seconds("prepare", lambda: prepare(str(data), image_size=(SIZE, SIZE), directory=task))
    return {
        **taken,
        "prepare_memory": memory.anonymous - before,
        "task_bytes": size(task),
    }


def train_alone(backbone: Path, task: Path, cache: Path) -> dict[str, float]:
    """Compute activations, then train an epoch on them and one on images. Runs in a separate process."""
    from trainables.training.workbench import Workbench

    memory = Memory()
    bench = Workbench.open(backbone, task, cache)
    found = {"engine_open": memory.look()}
    with memory.watched():
        for depth in (0, 2):
            bench.activations.stages.measurements(depth)
            found |= seconds(f"activations_{depth}", lambda d=depth: bench.activations.get("train", d))  # type: ignore[misc]
        for depth in (0, 2):
            found |= epoch(f"epoch_{depth}", bench, depth, live=False)
        found |= epoch("epoch_live", bench, 2, live=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    kept = bench.activations.bytes["memory"]
    return {
        **found,
        "engine_memory": memory.anonymous,
        "engine_mapped": memory.mapped,
        "engine_peak": peak,
        "cache_bytes": size(cache),
        "kept_bytes": kept,
    }


def epoch(name: str, bench: Any, depth: int, live: bool) -> dict[str, float]:
    """Seconds of one epoch, with everything compiled and all activations cached beforehand."""
    from trainables.methods.methods import begin
    from trainables.training.trial_config import TrialConfig

    params = {
        "unfreeze_depth": depth,
        "learning_rate": 1e-3,
        "head_units": 0,
        "augmentation_strength": 0.0,
    }
    bench.activations.get("validation", depth)
    training = begin(TrialConfig("finetune", params, epochs=1, live=live), bench)
    taken = seconds(name, training.run_epoch)
    training.release()
    return taken


def alone(part: str, *paths: Path) -> dict[str, float]:
    """Run a part of this file in a new process and return its results."""
    command = [sys.executable, "-m", "benchmarks.scaling.data_growth", "--part", part, *map(str, paths)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{part} ended with code {ran.returncode}:\n{ran.stderr[-3000:]}")
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def measure(count: int, form: str, backbone: Path, folder: Path) -> dict[str, float]:
    data = write(folder / "images", count, form)
    load = os.getloadavg()[0]
    found = alone("prepare", data, folder / "task")
    found |= alone("train", backbone, folder / "task", folder / "cache")
    return {
        **found,
        "prepare_rate": count / found["prepare"],
        "load": (load + os.getloadavg()[0]) / 2,
    }


def table(found: dict[int, dict[str, float]]) -> str:
    """A Markdown table with a row per quantity and a column per number of images."""
    lines = [
        "| images | " + " | ".join(f"{count:,}" for count in found) + " |",
        "| --- |" + " ---: |" * len(found),
    ]
    for title, key, digits_shown in ROWS:
        scale = 1e6 if "MB" in title else 1.0
        cells = [f"{each[key] / scale:,.{digits_shown}f}" for each in found.values()]
        if f"{key}_processor" in next(iter(found.values())):
            cells = [
                f"{c} ({e[f'{key}_processor']:,.{digits_shown}f})"
                for c, e in zip(cells, found.values(), strict=True)
            ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines.append("| load | " + " | ".join(f"{each['load']:.1f}" for each in found.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory over the number of images.")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--form", choices=["folder", "parquet"], default="folder")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        part, *paths = given.part
        run: Any = {"prepare": prepare_alone, "train": train_alone}[part]
        print(json.dumps(run(*map(Path, paths))))
        return
    from trainables.backbones.spec import BackboneSpec
    from trainables.modalities.image.backbones import load

    found: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="unfreeze-growth-") as folder:
        backbone = Path(folder) / "backbone.keras"
        load(BackboneSpec("print")).save(backbone)
        print(
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {platform.machine()}, {os.cpu_count()} cores, "
            f"PNG of {SIZE} pixels in a {given.form}\n"
        )
        for count in given.images:
            found[count] = measure(count, given.form, backbone, Path(folder) / str(count))
    print(table(found))


if __name__ == "__main__":
    main()
