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
