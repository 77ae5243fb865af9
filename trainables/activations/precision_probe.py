"""What two runs over the same few images tell of a piece of a network: its speed, its steadiness, its range."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

PROBE_IMAGES = 32
"""Images that a probe runs over."""

MAX_RUN_DIFFERENCE = 1e-3
"""Two runs may differ by this share of the spread between images: less than what float16 rounds away."""

MAX_ROUNDING_ERROR = 0.01
"""float16 is too coarse where it rounds away more than this share of the spread between images."""


@dataclass(frozen=True)
class StageMeasurement:
    """What was measured.

    ``seconds`` per image. ``difference`` between the two runs and ``error`` of rounding to float16 are root mean
    squares, as shares of the spread between images.
    """

    seconds: float
    difference: float
    error: float

    @property
    def deterministic(self) -> bool:
        """Whether the same images give the same numbers."""
        return self.difference <= MAX_RUN_DIFFERENCE

    @property
    def fits_float16(self) -> bool:
        """Whether float16 holds the values."""
        return self.error <= MAX_ROUNDING_ERROR


def measure_stage(run: Callable[[], Any]) -> StageMeasurement:
    """Call ``run`` twice; it returns a tensor (B, …) of the same B images each time."""
    first = np.asarray(run(), np.float32)  # traces and warms up: not timed
    began = time.perf_counter()
    second = np.asarray(run(), np.float32)
    seconds = (time.perf_counter() - began) / len(second)
    with np.errstate(over="ignore", invalid="ignore"):
        spread = _rms(second - second.mean(axis=0)) if len(second) > 1 else _rms(second - second.mean())
        rounded = second.astype(np.float16).astype(np.float32)
        return StageMeasurement(seconds, _share(second - first, spread), _share(rounded - second, spread))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _share(error: np.ndarray, spread: float) -> float:
    size = _rms(error)
    if size == 0.0:
        return 0.0
    return size / spread if spread > 0.0 and np.isfinite(size) else float("inf")
