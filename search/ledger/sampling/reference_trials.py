"""Hides reference trials from samplers: they are not chosen from the search space and lack most of its parameters.

A sampler that saw the frozen probe would take it for a trial of the space. TPE and CMA-ES would no longer propose
parameters jointly that the probe lacks, such as the learning rate; QMC takes the space from the first trial; and
wherever the probe is among the best trials, it would crowd out one that has parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import cache
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from search.config.choices import METHODS
from trainables.private_api import TESTED_VERSIONS, expect_private_api, missing_parameters

_REFERENCES = frozenset(name for name, method in METHODS.items() if method.reference)


IsHidden = Callable[[FrozenTrial], bool]


def is_reference(method: str | None) -> bool:
    """Return whether trials of ``method`` are run for comparison only."""
    return method in _REFERENCES


class ReferenceBlindSampler(BaseSampler):
    """Proposes what ``sampler`` would propose if there were no reference trials.

    Args:
        sampler: makes the proposals.
        is_hidden: whether a trial is a reference.

    Raises:
        SearchError: the installed version of Optuna has another private API.
    """

    def __init__(self, sampler: BaseSampler, is_hidden: IsHidden) -> None:
        _check_private_api()
        self._sampler, self._is_hidden = sampler, is_hidden

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that are proposed jointly; none for a reference trial."""
        if self._is_hidden(trial):
            return {}
        return self._sampler.infer_relative_search_space(self._visible(study), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return values of the parameters that are proposed jointly."""
        if self._is_hidden(trial):
            return {}
        return self._sampler.sample_relative(self._visible(study), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a value for one parameter on its own."""
        return self._sampler.sample_independent(self._visible(study), trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Delegate to the sampler."""
        if not self._is_hidden(trial):
            self._sampler.before_trial(self._visible(study), trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Delegate to the sampler."""
        if not self._is_hidden(trial):
            self._sampler.after_trial(self._visible(study), trial, state, values)

    def reseed_rng(self) -> None:
        """Delegate to the sampler."""
        self._sampler.reseed_rng()

    def _visible(self, study: Study) -> Any:
        return _VisibleTrials(study, self._is_hidden)


class _VisibleTrials:
    """A study as samplers see it."""

    def __init__(self, study: Study, is_hidden: IsHidden) -> None:
        self._study, self._is_hidden = study, is_hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.get_trials()

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self._study.get_trials(deepcopy, states) if not self._is_hidden(trial)]

    def _get_trials(self, *arguments: Any, **options: Any) -> list[FrozenTrial]:
        found = self._study._get_trials(*arguments, **options)
        return [trial for trial in found if not self._is_hidden(trial)]


@cache
def _check_private_api() -> None:
    missing = missing_parameters(
        getattr(Study, "_get_trials", None), "Study._get_trials", "deepcopy", "states", "use_cache"
    )
    expect_private_api("optuna", TESTED_VERSIONS["optuna"], "hides reference trials from samplers", missing)
