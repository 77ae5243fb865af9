"""Measures what a served model costs: bytes of its file, seconds to load it, milliseconds per image.

Times are valid for the machine that measured them, whose name is stored with them. Times of other machines can't be
compared with them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 32
"""Number of images in the larger of the two batches that are timed."""

WARM_UP = 3
MIN_CALLS, MAX_CALLS = 5, 200
"""Limits of the number of timed calls."""

TIMING_SECONDS = 0.5
"""Seconds of timing per batch size, within the limits on the number of calls."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds per image.

    Attributes:
        median: median of several calls.
        fastest: the fastest call.
        upper: third quartile of the calls.
    """

    median: float
    fastest: float
    upper: float

    def below(self, other: Latency, by: float = 0.1) -> bool:
        """Whether this latency is less than ``other`` by more than noise.

        The third quartile has to be below the other's fastest call by the share ``by``: on a busy machine all but the
        fastest calls are slow, and that must not make another model look cheap.
        """
        return self.upper < (1 - by) * other.fastest


@dataclass(frozen=True)
class Footprint:
    """What one model costs.

    Attributes:
        file_bytes: size of the ``.keras`` file.
        parameters: number of parameters.
        load_seconds: seconds to load the file, TensorFlow being imported already.
        latency: for a single image.
        batch_latency: per image of a batch of :data:`BATCH` images.
        processor: the processor that it was measured on.
    """

    file_bytes: int
    parameters: int
    load_seconds: float
    latency: Latency
    batch_latency: Latency
    processor: str


def measure_footprint(file: Path, image_size: tuple[int, int]) -> Footprint:
    """Load a served model and time it on blank images of ``image_size`` (H, W).

    Args:
        file: a ``.keras`` file from uint8 images (N, H, W, 3) to probabilities.
        image_size: (H, W) in pixels.
    """
    model, seconds = load_timed(file)
    return footprint_of_loaded(model, file, seconds, image_size)


def load_timed(file: Path) -> tuple[Any, float]:
    """Load a ``.keras`` file; returns the model and the seconds that loading took."""
    import keras

    began = time.perf_counter()
    model = keras.saving.load_model(file, compile=False, safe_mode=True)
    return model, time.perf_counter() - began


def footprint_of_loaded(
    model: Any, file: Path, load_seconds: float, image_size: tuple[int, int]
) -> Footprint:
    """The footprint of a model that :func:`load_timed` has loaded from ``file``.

    Args:
        load_seconds: time that loading took.
        image_size: (H, W) of the blank images that are timed.
    """
    return Footprint(
        file_bytes=file.stat().st_size,
        parameters=int(model.count_params()),
        load_seconds=load_seconds,
        latency=_each(model.predict_on_batch, 1, image_size),
        batch_latency=_each(model.predict_on_batch, BATCH, image_size),
        processor=processor_name(),
    )


def processor_name() -> str:
    """Return the name of the processor that TensorFlow uses, with the number of its threads."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return str(details.get("device_name", "GPU"))
    threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1
    return f"{_cpu()}, {threads} thread{'' if threads == 1 else 's'}"


def _each(ask: Callable[[Any], Any], batch: int, image_size: tuple[int, int]) -> Latency:
    images = np.zeros((batch, *image_size, 3), np.uint8)
    # The first calls trace the model and are not timed.
    for _ in range(WARM_UP):
        ask(images)
    times: list[float] = []
    end = time.perf_counter() + TIMING_SECONDS
    while len(times) < MIN_CALLS or (len(times) < MAX_CALLS and time.perf_counter() < end):
        began = time.perf_counter()
        ask(images)
        times.append(1000 * (time.perf_counter() - began) / batch)
    median, upper = np.quantile(times, (0.5, 0.75))
    return Latency(float(median), min(times), float(upper))


def _cpu() -> str:
    """Return the name of the processor, or its architecture if the system does not tell the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((name for name in names if name), os.uname().machine)
