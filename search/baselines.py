"""What a search is compared with, in words."""

from __future__ import annotations

from collections.abc import Mapping

BASELINES: Mapping[str, str] = {
    "scratch": "scratch",
    "finetune": "the target alone",
    "source": "the source alone",
}
"""What each trains from."""


def trained_from(method: str) -> str:
    """``training from scratch`` and the like."""
    return f"training from {BASELINES.get(method, method)}"


MOST_TIMES = 10.0


def equal_steps(target: int, source: int) -> float:
    """How many times as many epochs training images of the ``target`` alone get as those of both, ten at most.

    An epoch of both has as many more batches; a baseline of fewer steps would be beaten for that alone.
    """
    return min((target + source) / target, MOST_TIMES)
