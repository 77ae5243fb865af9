"""Compute Pareto fronts.

A point is a tuple of losses, one for each objective; lower is better (:func:`objective_losses`). A point dominates
another if it is at least as good in every objective and better in one. The front holds the points that no other
point dominates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from search.records.metrics import METRICS

Point = tuple[float, ...]


def objective_losses(values: Mapping[str, float], names: Sequence[str]) -> Point | None:
    """Return the point of a trial with these objective ``values``; None if a value is missing or not finite.

    Objectives that are maximised are negated.
    """
    found = [values.get(name, math.nan) for name in names]
    if not all(map(math.isfinite, found)):
        return None
    return tuple(
        -v if METRICS[name].direction == "maximize" else v for name, v in zip(names, found, strict=True)
    )


def weakly_dominates(first: Point, second: Point) -> bool:
    """Return whether ``first`` is at least as good as ``second`` in every objective."""
    return all(a <= b for a, b in zip(first, second, strict=True))


def dominates(first: Point, second: Point) -> bool:
    """Return whether ``first`` is at least as good as ``second`` in every objective and better in one."""
    return weakly_dominates(first, second) and first != second


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Return the indices of the non-dominated points, the best in the first objective first.

    Equal points are all returned. Ties in the first objective are broken by the second, and so on, then by the order
    of ``points``.
    """
    order = sorted(range(len(points)), key=lambda index: (points[index], index))
    front: list[int] = []
    # In lexicographic order, every point that dominates another one comes before it. So each point needs to be
    # compared with the front so far only.
    for index in order:
        if not any(dominates(points[known], points[index]) for known in front):
            front.append(index)
    return front


def knee(points: Sequence[Point]) -> int:
    """Return the index of the point nearest to the ideal point, which is the best in every objective.

    Distances are Euclidean, with each objective scaled from 0 (the best of ``points``) to 1 (the worst).
    """
    scaled = _scaled(points)
    return min(range(len(points)), key=lambda index: (_norm(scaled[index]), index))


def diverse_subset(points: Sequence[Point], max_points: int) -> list[int]:
    """Return the sorted indices of at most ``max_points`` different points that represent a front.

    The first point is always chosen, then the knee and the best point of each objective, then repeatedly the point
    farthest from those chosen so far (farthest-first traversal).

    Args:
        points: the points of a front; the first is always in the result.
        max_points: the largest number of points, at least 1.
    """
    different = [index for index, point in enumerate(points) if point not in points[:index]]
    if len(different) <= max_points:
        return different
    # The index breaks ties: of equal points the first one is chosen.
    ends = [min((point[k], index) for index, point in enumerate(points))[1] for k in range(len(points[0]))]
    middle = different[knee([points[index] for index in different])]
    chosen = list(dict.fromkeys([0, middle, *ends]))[:max_points]
    scaled = _scaled(points)
    while len(chosen) < max_points:
        left = [index for index in different if index not in chosen]
        gaps = {i: min(_norm(_minus(scaled[i], scaled[c])) for c in chosen) for i in left}
        chosen.append(max(left, key=lambda index: (gaps[index], -index)))
    return sorted(chosen)


def _scaled(points: Sequence[Point]) -> list[Point]:
    columns = list(zip(*points, strict=True))
    lows = [min(column) for column in columns]
    # An objective in which all points agree must not divide by 0.
    spans = [max(column) - low or 1.0 for column, low in zip(columns, lows, strict=True)]
    return [tuple((v - low) / span for v, low, span in zip(p, lows, spans, strict=True)) for p in points]


def _minus(first: Point, second: Point) -> Point:
    return tuple(a - b for a, b in zip(first, second, strict=True))


def _norm(point: Point) -> float:
    return math.hypot(*point)
