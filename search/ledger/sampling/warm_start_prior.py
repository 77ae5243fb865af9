"""Proposes trials near the best configurations of earlier searches (``--warm-start``).

The probability of such a proposal falls as the search progresses. None is made before the sampler has proposed a few
trials itself, and none while the transferred trials are worse than the median of those. A misleading earlier search
therefore costs little more than the trials tried first.
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
from trainables.methods.methods import PROBE

DRAW_STRENGTH = 1.0
"""Strength s of the prior: trial n is drawn with probability s / (s + n), so about s · log N of N trials are drawn. It
is multiplied by the similarity of the most similar task."""

DRAW_WIDTH = 0.1
"""Standard deviation of a draw around the earlier value, as a share of the parameter's range."""

MIN_OWN_TRIALS = 3
"""Least number of the sampler's own trials with which those that were taken over are compared. Nothing is drawn before:
in real searches, an earlier search with the opposite optimum would otherwise take up to four of the first four
trials."""


@dataclass(frozen=True)
class WarmStartPrior:
    """Draws trials near what did well in earlier searches.

    Attributes:
        configs: what was taken over, the best first (:func:`search.ledger.sampling.warm_start.transferred_configs`).
        space: of this search.
        direction: of the objective.
    """

    configs: Sequence[TransferredConfig]
    space: Space
    direction: Direction

    def propose(self, seed: int, started: int, trials: Sequence[TrialRecord]) -> Proposal | None:
        """Return a configuration near one of those that were taken over, or None to leave the trial to the sampler.

        See :meth:`search.ledger.sampling.proposals.ProposalSource.propose`. Better configurations and those of more
        similar tasks are more likely.
        """
        # The last number keeps these random numbers apart from those of the other sources with the same seed.
        rng = np.random.default_rng([seed, started, 11])
        strength = DRAW_STRENGTH * max((config.similarity for config in self.configs), default=0.0)
        taken, own = split_by_origin(trials, self.direction)
        if rng.random() >= strength / (strength + started) or len(own) < MIN_OWN_TRIALS or _worse(taken, own):
            return None
        weights = np.array([c.similarity * 2.0 ** (-rank / 2) for rank, c in enumerate(self.configs)])
        chosen = self.configs[int(rng.choice(len(weights), p=weights / weights.sum()))]
        params = _draw_near(chosen.params, self.space, rng)
        if params is None:
            return None
        return Proposal(f"{WARM_START_ORIGIN}: near {chosen.search} #{chosen.trial}", params)


def is_misleading(trials: Sequence[TrialRecord], direction: Direction) -> bool:
    """Return whether the best of the trials that were taken over is worse than half of the sampler's own."""
    taken, own = split_by_origin(trials, direction)
    return len(own) >= MIN_OWN_TRIALS and _worse(taken, own)


def _worse(taken: Sequence[float], own: Sequence[float]) -> bool:
    return bool(taken) and max(taken) < median(own)


def split_by_origin(trials: Iterable[TrialRecord], direction: Direction) -> tuple[list[float], list[float]]:
    """Objective values of ended trials, as numbers of which greater is better.

    Returns:
        Those of trials that were taken over from earlier searches or drawn near them, and those of all others.
        Frozen probes are neither.
    """
    sign = 1.0 if direction == "maximize" else -1.0
    taken: list[float] = []
    own: list[float] = []
    for trial in trials:
        if trial.finished and trial.value is not None and trial.method != PROBE:
            (taken if (trial.origin or "").startswith(WARM_START_ORIGIN) else own).append(sign * trial.value)
    return taken, own


def _draw_near(
    params: Parameters, space: Space, rng: np.random.Generator
) -> dict[str, ParameterValue] | None:
    moved = {name: _draw_value(value, space.ranges[name], rng) for name, value in params.items()}
    # The range of the depth is that of the largest backbone; each backbone ends at its own blocks.
    if BACKBONE in moved and DEPTH in moved:
        moved[DEPTH] = min(int(moved[DEPTH]), space.backbones[str(moved[BACKBONE])])
    try:
        return space.check({n: v for n, v in moved.items() if n in params})
    except UsageError:
        return None


def _draw_value(value: ParameterValue, values: Range, rng: np.random.Generator) -> ParameterValue:
    """Draw a number around ``value``, within its range. Values that are no numbers stay as they are."""
    if isinstance(value, bool | str) or not isinstance(values, FloatRange | IntRange):
        return value
    low, high = float(values.low), float(values.high)
    if low == high:
        return value
    to_scale, from_scale = (math.log, math.exp) if values.log else (float, float)
    start, end = to_scale(low), to_scale(high)
    position = to_scale(value) + rng.normal(0.0, DRAW_WIDTH * (end - start))
    found = from_scale(min(max(position, start), end))
    step = values.step or 0
    if step and not values.log:
        found = low + step * round((found - low) / step)
    found = min(max(found, low), high)  # rounding may have left the range
    return round(found) if isinstance(values, IntRange) else float(found)


def warm_start_summary(record: SearchRecord) -> str | None:
    """Return a sentence on how useful the earlier searches were; None if the search names none."""
    if record.warm_start is None:
        return None
    taken, own = split_by_origin(record.trials, record.direction)
    if not record.warm_start:
        named = record.config.get("warm_start")
        asked = ", ".join(map(str, named)) if isinstance(named, list | tuple) else "earlier searches"
        return f"no configuration of {asked} fits this search's space; none was transferred"
    names = ", ".join(dict.fromkeys(str(config["search"]) for config in record.warm_start))
    if not taken or not own:
        return f"{len(taken)} trials taken from {names}"
    sign = 1.0 if record.direction == "maximize" else -1.0
    best_taken, best_own = sign * max(taken), sign * max(own)
    text = (
        f"best of the {len(taken)} trials taken from {names} {best_taken:.4f}, of all others {best_own:.4f}"
    )
    misled = is_misleading(record.trials, record.direction)
    return f"{text}; the earlier searches were misleading here" if misled else text
