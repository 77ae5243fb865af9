"""The prior of ``--warm-start``: trials near what did well in earlier searches, and a guard against those that mislead.

With a probability that fades, a trial is drawn near one of the best configurations of the earlier searches, but not
before the sampler has some trials of its own to compare with. Where these tell that what was taken over is worse than
what the sampler finds by itself, nothing is drawn. So an earlier search that misleads costs the configurations that
were tried first, and little else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from search.config.parameters import BACKBONE, DEPTH
from search.config.ranges import FloatRange, IntRange, Range
from search.config.space import Space
from search.ledger.sampling.proposals import Proposal
from search.ledger.sampling.warm_start import WARM_START_ORIGIN, TransferredConfig
from search.records.metrics import Direction
from search.records.record import Parameters, ParameterValue, SearchRecord, TrialRecord
from trainables.errors import UsageError

DRAW_STRENGTH = 1.0
"""Trials that the draws are worth: those near earlier ones number about its product with the logarithm of all."""

DRAW_WIDTH = 0.1
"""Of a parameter's range: the standard deviation of what is drawn near an earlier value."""

MIN_OWN_TRIALS = 3
"""Trials of the sampler's own beside which those that were taken over are judged; before that nothing is drawn: in real
searches an adversarial one took up to four of the first four trials."""


@dataclass(frozen=True)
class WarmStartPrior:
    """Draws trials near what did well in earlier searches, ever less often, and not at all once that is no good."""

    lessons: Sequence[TransferredConfig]
    space: Space
    direction: Direction

    def propose(self, seed: int, started: int, trials: Sequence[TrialRecord]) -> Proposal | None:
        """A configuration near one of the lessons; the better and the more alike, the likelier."""
        rng = np.random.default_rng([seed, started, 11])
        strength = DRAW_STRENGTH * max((lesson.similarity for lesson in self.lessons), default=0.0)
        taken, others = split_by_origin(trials, self.direction)
        if (
            rng.random() >= strength / (strength + started)
            or len(others) < MIN_OWN_TRIALS
            or _worse(taken, others)
        ):
            return None
        weights = np.array([le.similarity * 2.0 ** (-place / 2) for place, le in enumerate(self.lessons)])
        chosen = self.lessons[int(rng.choice(len(weights), p=weights / weights.sum()))]
        params = _near(chosen.params, self.space, rng)
        return (
            None
            if params is None
            else Proposal(f"{WARM_START_ORIGIN}: near {chosen.search} #{chosen.trial}", params)
        )


def is_misleading(trials: Sequence[TrialRecord], direction: Direction) -> bool:
    """Whether what was taken over has done worse, at its best, than half of the other trials."""
    taken, others = split_by_origin(trials, direction)
    return len(others) >= MIN_OWN_TRIALS and _worse(taken, others)


def _worse(taken: Sequence[float], others: Sequence[float]) -> bool:
    return bool(taken) and max(taken) < median(others)


def split_by_origin(trials: Iterable[TrialRecord], direction: Direction) -> tuple[list[float], list[float]]:
    """Objectives, greater is better, of ended trials that were taken over, and of all others."""
    sign = 1.0 if direction == "maximize" else -1.0
    taken: list[float] = []
    others: list[float] = []
    for trial in trials:
        if trial.finished and trial.value is not None:
            (taken if (trial.origin or "").startswith(WARM_START_ORIGIN) else others).append(
                sign * trial.value
            )
    return taken, others


def _near(params: Parameters, space: Space, rng: np.random.Generator) -> dict[str, ParameterValue] | None:
    moved = {name: _moved(value, space.ranges[name], rng) for name, value in params.items()}
    if BACKBONE in moved and DEPTH in moved:
        moved[DEPTH] = min(int(moved[DEPTH]), space.backbones[str(moved[BACKBONE])])
    try:
        return space.check({n: v for n, v in moved.items() if n in params})
    except UsageError:
        return None


def _moved(value: ParameterValue, values: Range, rng: np.random.Generator) -> ParameterValue:
    """A number a little away from ``value``, within its range; other values stay."""
    if isinstance(value, bool | str) or not isinstance(values, FloatRange | IntRange):
        return value
    low, high = float(values.low), float(values.high)
    if low == high:
        return value
    by_log = (math.log, math.exp) if values.log else (float, float)
    start, end = by_log[0](low), by_log[0](high)
    place = by_log[0](value) + rng.normal(0.0, DRAW_WIDTH * (end - start))
    found = by_log[1](min(max(place, start), end))
    step = values.step or 0
    if step and not values.log:
        found = low + step * round((found - low) / step)
    found = min(max(found, low), high)
    return round(found) if isinstance(values, IntRange) else float(found)


def warm_start_summary(record: SearchRecord) -> str | None:
    """What the earlier searches were worth, in a sentence; None without any."""
    if record.warm_start is None:
        return None
    taken, others = split_by_origin(record.trials, record.direction)
    if not record.warm_start:
        named = record.config.get("warm_start")
        asked = ", ".join(map(str, named)) if isinstance(named, list | tuple) else "earlier searches"
        return f"nothing taken from {asked}: no configuration there has a place in this search's space"
    names = ", ".join(dict.fromkeys(str(lesson["search"]) for lesson in record.warm_start))
    if not taken or not others:
        return f"{len(taken)} trials taken from {names}"
    sign = 1.0 if record.direction == "maximize" else -1.0
    best, other = sign * max(taken), sign * max(others)
    said = f"best of the {len(taken)} trials taken from {names} {best:.4f}, of all others {other:.4f}"
    return f"{said}; they were no good guide here" if is_misleading(record.trials, record.direction) else said
