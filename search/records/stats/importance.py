"""Estimate which parameters make the difference between the best trials and the others, with confidence intervals.

The estimator is PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023): how much the distribution of a parameter among
the best trials differs from that among all trials. The intervals are percentile bootstrap intervals over trials.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.records.metrics import Direction
from search.records.record import Interval, Parameters

MIN_TRIALS = 4
BEST_SHARE, BEST_TRIALS = 0.1, 5
"""The best trials are a tenth of all trials, but at least five, and at most half of all."""

MIN_RESAMPLES, MAX_RESAMPLES = 40, 100
"""Number of bootstrap resamples: with many trials the interval is narrow and each resample takes longer."""

MAX_DRAWN_TRIALS = 20_000
"""Trials that all resamples hold together, unless MIN_RESAMPLES of them already hold more."""


@dataclass(frozen=True)
class EvaluatedTrial:
    """A trial with a value: its parameters, their distributions, and its objective value."""

    params: Parameters
    distributions: Mapping[str, BaseDistribution]
    value: float


def importances(trials: Sequence[EvaluatedTrial], direction: Direction) -> dict[str, float]:
    """Return the share of each parameter in what makes trials good.

    The shares sum to 1. The result is empty if too few trials differ in their values.
    """
    return _shares(_study(trials, direction))


def importance_intervals(
    trials: Sequence[EvaluatedTrial], direction: Direction, seed: int = 0
) -> dict[str, Interval]:
    """Return :func:`importances` with 95 % percentile intervals over trials drawn with replacement.

    A resample in which a parameter does not vary counts as 0 for it. Each interval is widened to contain its
    estimate.
    """
    study = _study(trials, direction)
    known = _shares(study)
    if not known:
        return {}
    random = np.random.default_rng(seed)
    resamples = min(max(MAX_DRAWN_TRIALS // len(trials), MIN_RESAMPLES), MAX_RESAMPLES)
    drawn = [_shares(study.resample(random.integers(0, len(trials), len(trials)))) for _ in range(resamples)]
    shares = {
        # A resample of equal values has no importances at all and is left out.
        name: [draw.get(name, 0.0) for draw in drawn if draw] or [share]
        for name, share in known.items()
    }
    return {name: _interval(share, shares[name]) for name, share in known.items()}


class _FixedStudy(optuna.Study):
    """An Optuna study of given trials.

    A study that adds the trials of each resample to a storage would take most of the time.
    """

    def __init__(
        self, name: str, storage: InMemoryStorage, trials: Sequence[FrozenTrial] | None = None
    ) -> None:
        super().__init__(name, storage)
        self._name_and_storage = name, storage
        self._given = list(super().get_trials(deepcopy=False) if trials is None else trials)

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials, all of which are complete."""
        return self._given

    def resample(self, places: Iterable[int]) -> _FixedStudy:
        """Return the study of the trials at ``places``, which may contain a trial several times."""
        return _FixedStudy(*self._name_and_storage, [self._given[place] for place in places])


def _study(trials: Sequence[EvaluatedTrial], direction: Direction) -> _FixedStudy:
    storage = InMemoryStorage()
    study = optuna.create_study(direction=direction, storage=storage)
    study.add_trials(
        [
            create_trial(params=dict(t.params), distributions=dict(t.distributions), value=t.value)
            for t in trials
        ]
    )
    return _FixedStudy(study.study_name, storage)


def _shares(study: _FixedStudy) -> dict[str, float]:
    trials = study.get_trials()
    if len(trials) < MIN_TRIALS or len({t.value for t in trials}) < 2:
        return {}
    # Imported here, because it imports scikit-learn, which takes long.
    from optuna.importance import PedAnovaImportanceEvaluator

    # PED-ANOVA's quantile gamma. A tenth of few trials would be a single one, whose density says nothing.
    best = min(max(BEST_SHARE, BEST_TRIALS / len(trials)), 0.5)
    with warnings.catch_warnings():
        # Optuna warns that the evaluator is experimental: once per resample.
        warnings.simplefilter("ignore")
        found = PedAnovaImportanceEvaluator(target_quantile=best).evaluate(study)
    total = sum(found.values())
    return {name: value / total for name, value in found.items()} if total > 0 else {}


def _interval(share: float, drawn: Sequence[float]) -> Interval:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(share, min(float(low), share), max(float(high), share))
