"""The Pareto front: points that no other is better than in one objective and as good as in all.

A point is a tuple of losses, one an objective, of which less is better (:func:`objective_losses`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from search.records.metrics import OBJECTIVES

Point = tuple[float, ...]


def objective_losses(values: Mapping[str, float], names: Sequence[str]) -> Point | None:
    """The point of a trial with these objective ``values``; None if one is missing or no finite number."""
    found = [values.get(name, math.nan) for name in names]
    if not all(map(math.isfinite, found)):
        return None
    return tuple(-v if OBJECTIVES[name] == "maximize" else v for name, v in zip(names, found, strict=True))


def weakly_dominates(first: Point, second: Point) -> bool:
    """Whether ``first`` is at least as good as ``second`` in every objective."""
    return all(a <= b for a, b in zip(first, second, strict=True))


def dominates(first: Point, second: Point) -> bool:
    """Whether ``first`` is at least as good in every objective and better in one."""
    return weakly_dominates(first, second) and first != second


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other dominates, the best in the first objective first; equal points are all there.

    Ties in the first objective go by the second, and so on, then by the order of ``points``.
    """
    order = sorted(range(len(points)), key=lambda index: (points[index], index))
    front: list[int] = []
    for index in order:  # who dominates a point comes before it
        if not any(dominates(points[known], points[index]) for known in front):
            front.append(index)
    return front


def knee(points: Sequence[Point]) -> int:
    """Index of the point that is nearest to the best of all objectives at once.

    Distances are Euclidean, each objective being scaled from 0 (the best of ``points``) to 1 (the worst).
    """
    scaled = _scaled(points)
    return min(range(len(points)), key=lambda index: (_norm(scaled[index]), index))


def diverse_subset(points: Sequence[Point], most: int) -> list[int]:
    """Indices of at most ``most`` different points of a front: the first, the knee, the ends, and what is far off.

    Args:
        points: of a front, the first being in the result whatever happens.
        most: at least 1.
    """
    different = [index for index, point in enumerate(points) if point not in points[:index]]
    if len(different) <= most:
        return different
    ends = [min((point[k], index) for index, point in enumerate(points))[1] for k in range(len(points[0]))]
    middle = different[knee([points[index] for index in different])]
    chosen = list(dict.fromkeys([0, middle, *ends]))[:most]
    scaled = _scaled(points)
    while len(chosen) < most:
        left = [index for index in different if index not in chosen]
        gaps = {i: min(_norm(_minus(scaled[i], scaled[c])) for c in chosen) for i in left}
        chosen.append(max(left, key=lambda index: (gaps[index], -index)))
    return sorted(chosen)


def _scaled(points: Sequence[Point]) -> list[Point]:
    columns = list(zip(*points, strict=True))
    lows = [min(column) for column in columns]
    spans = [max(column) - low or 1.0 for column, low in zip(columns, lows, strict=True)]
    return [tuple((v - low) / span for v, low, span in zip(p, lows, spans, strict=True)) for p in points]


def _minus(first: Point, second: Point) -> Point:
    return tuple(a - b for a, b in zip(first, second, strict=True))


def _norm(point: Point) -> float:
    return math.hypot(*point)
