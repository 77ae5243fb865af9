"""Draw fixed configurations: a seeded design that is balanced over the unfreeze depths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LEARNING_RATES = (1e-4, 3e-2)
HEAD_UNITS = (0, 64, 128, 192, 256)
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def depth_of(share: str, blocks: int) -> int:
    """A depth from ``0``, ``1`` (blocks) or a share of all ``blocks`` such as ``1/4`` or ``1/1``."""
    if "/" not in share:
        return int(share)
    part, whole = map(int, share.split("/"))
    return max(1, round(blocks * part / whole))


def design(
    trials: int, depths: Sequence[int], strengths: Sequence[float] = STRENGTHS, seed: int = 0
) -> list[dict[str, Any]]:
    """Draw ``trials`` configurations. Every consecutive ``len(depths)`` of them have each depth once.

    The other parameters are drawn as a random search draws from the core space: the learning rate log-uniformly, head
    units and augmentation strength uniformly over their levels.
    """
    generator = np.random.default_rng([seed, 0xDE5])
    low, high = np.log(LEARNING_RATES)
    found: list[dict[str, Any]] = []
    while len(found) < trials:
        for depth in generator.permutation(list(depths)):
            found.append(
                {
                    "unfreeze_depth": int(depth),
                    "learning_rate": float(np.exp(generator.uniform(low, high))),
                    "head_units": int(generator.choice(HEAD_UNITS)),
                    "augmentation_strength": float(generator.choice(list(strengths))),
                }
            )
    return found[:trials]
