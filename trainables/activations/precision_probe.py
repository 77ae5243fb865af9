"""Runs a part of a network twice over a few images to measure its speed, whether it is deterministic, and its range."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

PROBE_IMAGES = 32
"""Number of images of a probe."""

MAX_RUN_DIFFERENCE = 1e-3
"""Largest difference between two runs of a deterministic stage, as a share of the spread between images. It is smaller
than the rounding error of float16."""

MAX_ROUNDING_ERROR = 0.01
"""Largest rounding error of float16 that is accepted, as a share of the spread between images."""


@dataclass(frozen=True)
class StageMeasurement:
    """The measurements of one stage.

    Attributes:
        seconds: per image.
        difference: root mean square of the difference between the two runs, as a share of the spread between images.
        error: root mean square of the error of rounding to float16, as a share of the spread between images.
    """

    seconds: float
    difference: float
    error: float

    @property
    def deterministic(self) -> bool:
        """Whether the same images give the same values."""
        return self.difference <= MAX_RUN_DIFFERENCE

    @property
    def fits_float16(self) -> bool:
        """Whether float16 represents the values well enough."""
        return self.error <= MAX_ROUNDING_ERROR


def measure_stage(run: Callable[[], Any]) -> StageMeasurement:
    """Call ``run`` twice and compare the results; each time it returns the tensor (B, …) of the same B images."""
    first = np.asarray(run(), np.float32)  # traces and warms up: not timed
    began = time.perf_counter()
    second = np.asarray(run(), np.float32)
    seconds = (time.perf_counter() - began) / len(second)
    with np.errstate(over="ignore", invalid="ignore"):
        # Relative to the spread between images: a large constant offset would hide differences that matter.
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
