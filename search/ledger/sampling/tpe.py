"""Optuna's TPE sampler, with one change for searches over several backbones and one that saves time.

Where a search chooses among backbones, the range of ``unfreeze_depth`` ends at the number of blocks of the chosen one.
Optuna proposes jointly only the parameters whose range is the same in all trials, so it would propose the depth on its
own. This sampler proposes the depth jointly too, as a fraction of the backbone's blocks: half of one backbone
corresponds to half of another, and what the trials of one backbone teach serves the others.

The ledger makes a new sampler for each proposal (:func:`search.ledger.sampling.samplers.make_sampler`). Optuna's
sampler would then look through all earlier trials for the parameters that they have in common; this one is given the
result of the last time and looks at new trials only.

This is the only module that uses private API of Optuna's samplers: :func:`check_private_api` lists it.

Source: Bergstra, Bardenet, Bengio and Kégl, "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial

from search.config.parameters import BACKBONE, DEPTH
from trainables.private_api import TESTED_VERSIONS, expect_private_api, missing_parameters

FRACTIONS = FloatDistribution(0.0, 1.0)
"""The range of a depth that is a fraction of the blocks."""


class IncrementalTPESampler(TPESampler):
    """Proposes what :class:`optuna.samplers.TPESampler` proposes, unless the search chooses among backbones.

    Args:
        seed: the seed of this proposal.
        shared_space: the parameters that all trials of the study have in common; kept from one sampler to the next.
        n_startup_trials: the first so many trials are random; Optuna's default.

    Raises:
        SearchError: the installed version of Optuna has another private API.
    """

    def __init__(self, seed: int, shared_space: IntersectionSearchSpace, n_startup_trials: int = 10) -> None:
        check_private_api()
        super().__init__(seed=seed, n_startup_trials=n_startup_trials)
        self._shared_space = shared_space
        self._depths: dict[str, IntDistribution] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that are proposed jointly.

        With several objectives Optuna proposes each one on its own.
        """
        if _multi_objective(study):
            return {}
        shared = self._shared_space.calculate(study)
        # Optuna's own sampler leaves out parameters with a single possible value, too: there is nothing to
        # model.
        found = {name: values for name, values in shared.items() if not values.single()}
        # The depth is missing from the shared space exactly if its range differs between trials.
        self._depths = _depths_by_backbone(study) if BACKBONE in found and DEPTH not in shared else {}
        if self._depths:
            ranges = self._depths.values()
            found[DEPTH] = IntDistribution(min(d.low for d in ranges), max(d.high for d in ranges))
        return found

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a value for one parameter on its own."""
        if param_name == DEPTH and self._depths:
            # No trial had this backbone, so its range of depths was unknown to the joint proposal. TPE would now
            # compare the depths of other backbones in blocks, which means nothing here.
            return self._random_sampler.sample_independent(study, trial, param_name, param_distribution)
        several = param_name == DEPTH and BACKBONE in trial.params and _multi_objective(study)
        if several and isinstance(param_distribution, IntDistribution):
            view: Any = _DepthsAsFractions(study)
            fraction = super().sample_independent(view, trial, DEPTH, FRACTIONS)
            return fraction_to_depth(fraction, param_distribution)
        return super().sample_independent(study, trial, param_name, param_distribution)

    def _sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        # Overridden instead of the public sample_relative, which also tells other trials that run at the same time what
        # was proposed (Optuna's "constant liar"): they must see a depth, not a fraction.
        if DEPTH not in search_space or not self._depths:
            return super()._sample_relative(study, trial, search_space)
        view: Any = _DepthsAsFractions(study)
        found: dict[str, Any] = super()._sample_relative(view, trial, {**search_space, DEPTH: FRACTIONS})
        if found:
            fraction, depths = found.pop(DEPTH), self._depths.get(found[BACKBONE])
            if depths is not None:  # otherwise no trial has shown how many blocks this backbone has
                found[DEPTH] = fraction_to_depth(fraction, depths)
        return found


class _DepthsAsFractions:
    """A study as TPE sees it, in which the depth of each trial is a fraction of its backbone's blocks."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, *arguments: Any, **options: Any) -> list[FrozenTrial]:
        return [_with_fraction(trial) for trial in self._study._get_trials(*arguments, **options)]


@cache
def check_private_api() -> None:
    """Make sure that Optuna still has the private API that the sampler overrides and calls.

    Raises:
        SearchError: it has not; the message names the version to install.
    """
    missing = missing_parameters(
        getattr(TPESampler, "_sample_relative", None),
        "TPESampler._sample_relative",
        *("study", "trial", "search_space"),
    )
    missing += missing_parameters(
        getattr(Study, "_get_trials", None), "Study._get_trials", "deepcopy", "states", "use_cache"
    )
    if not hasattr(TPESampler(), "_random_sampler"):
        missing.append("TPESampler._random_sampler")
    purpose = "proposes the depths of several backbones jointly"
    expect_private_api("optuna", TESTED_VERSIONS["optuna"], purpose, missing)


def depth_to_fraction(depth: int, depths: IntDistribution) -> float:
    """Return the fraction of a backbone's blocks to which ``depth`` corresponds.

    The interval from 0 to 1 is divided into as many equal parts as there are depths; the result is the middle of a
    part, so that :func:`fraction_to_depth` gives the same depth again.
    """
    count = (depths.high - depths.low) // depths.step + 1
    return ((depth - depths.low) // depths.step + 0.5) / count


def fraction_to_depth(fraction: float, depths: IntDistribution) -> int:
    """Return the depth of a backbone with the range ``depths`` to which a fraction of its blocks corresponds."""
    count = (depths.high - depths.low) // depths.step + 1
    return depths.low + depths.step * min(
        int(fraction * count), count - 1
    )  # a fraction of 1 belongs to the last part


def new_shared_space() -> IntersectionSearchSpace:
    """Return the parameters that all trials of a study have in common, before any trial was looked at."""
    return IntersectionSearchSpace(include_pruned=True)


def _multi_objective(study: Study) -> bool:
    return len(study.directions) > 1


def _with_fraction(trial: FrozenTrial) -> FrozenTrial:
    depths = trial.distributions.get(DEPTH)
    if not isinstance(depths, IntDistribution):
        return trial
    changed = copy.copy(trial)  # the storage returns its own trials, which nobody may change
    changed.params = {**trial.params, DEPTH: depth_to_fraction(trial.params[DEPTH], depths)}
    return changed


def _depths_by_backbone(study: Study) -> dict[str, IntDistribution]:
    """Return the range of depths of each backbone that some trial had; empty if the search has a list of depths, not a
    range.
    """
    found = {}
    for trial in study.get_trials(deepcopy=False):
        depths, backbone = trial.distributions.get(DEPTH), trial.params.get(BACKBONE)
        if isinstance(depths, IntDistribution) and isinstance(backbone, str):
            found[backbone] = depths
    return found
