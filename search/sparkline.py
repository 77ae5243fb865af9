"""A curve in one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-=^"


def sparkline(values: Sequence[float], low: float, high: float, width: int, ascii_only: bool = False) -> str:
    """``values`` as at most ``width`` characters, ``low`` at the bottom and ``high`` at the top.

    More values than ``width`` are averaged in equal parts; what has no place there (NaN) becomes a ``!``.
    """
    marks = _ASCII if ascii_only else _BLOCKS
    return "".join(_mark(value, low, high, marks) for value in _squeezed(values, width))


def _squeezed(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    cuts = [round(i * len(values) / width) for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]


def _mark(value: float, low: float, high: float, marks: str) -> str:
    if not math.isfinite(value):
        return "!"
    share = (value - low) / (high - low) if low < high else 0.5
    if not math.isfinite(share):
        return "!"
    return marks[min(len(marks) - 1, int(min(1.0, max(0.0, share)) * len(marks)))]
