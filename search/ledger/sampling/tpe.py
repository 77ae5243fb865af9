"""Optuna's TPE, made anew for every proposal without looking at every earlier trial for what they have in common.

Where a search chooses among backbones, the range of ``unfreeze_depth`` is each backbone's own. Optuna leaves out of a
joint proposal whatever has no constant range; this sampler brings the depth back in as a share of the blocks: half of
one backbone is to it like half of another, and what is learned of one serves the others.
"""

from __future__ import annotations

import copy
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial

from search.config.backbone_parameter import BACKBONE, DEPTH


class IncrementalTPESampler(TPESampler):
    """Proposes what :class:`optuna.samplers.TPESampler` does.

    Args:
        seed: of this proposal.
        common: the parameters that all trials of the study have; kept from one sampler to the next.
    """

    def __init__(self, seed: int, common: IntersectionSearchSpace) -> None:
        super().__init__(seed=seed)
        self._common = common
        self._depths: dict[str, IntDistribution] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are proposed together; with several objectives Optuna proposes each by itself."""
        if study._is_multi_objective():
            return {}
        common = self._common.calculate(study)
        found = {n: d for n, d in common.items() if not d.single()}
        self._depths = _depths(study) if BACKBONE in found and DEPTH not in common else {}
        if self._depths:
            ranges = self._depths.values()
            found[DEPTH] = IntDistribution(min(d.low for d in ranges), max(d.high for d in ranges))
        return found

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value on its own: a depth, if another backbone's depths would tell of it, by chance."""
        if param_name == DEPTH and self._depths:
            return self._random_sampler.sample_independent(study, trial, param_name, param_distribution)
        several = param_name == DEPTH and BACKBONE in trial.params and study._is_multi_objective()
        if several and isinstance(param_distribution, IntDistribution):
            shares = FloatDistribution(0.0, 1.0)
            share = super().sample_independent(_Shares(study), trial, DEPTH, shares)  # type: ignore[arg-type]
            return fraction_to_depth(share, param_distribution)
        return super().sample_independent(study, trial, param_name, param_distribution)

    def _sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if DEPTH not in search_space or not self._depths:
            return super()._sample_relative(study, trial, search_space)
        shares = {**search_space, DEPTH: FloatDistribution(0.0, 1.0)}
        found: dict[str, Any] = super()._sample_relative(_Shares(study), trial, shares)  # type: ignore[arg-type]
        if found:
            share, own = found.pop(DEPTH), self._depths.get(found[BACKBONE])
            if own is not None:  # else no trial says yet how many blocks it has
                found[DEPTH] = fraction_to_depth(share, own)
        return found


class _Shares:
    """A study whose depths are shares."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, *arguments: Any, **options: Any) -> list[FrozenTrial]:
        return [_by_share(trial) for trial in self._study._get_trials(*arguments, **options)]


def depth_to_fraction(depth: int, depths: IntDistribution) -> float:
    """Where a depth lies among its backbone's: the middle of its equal part of 0 to 1."""
    count = (depths.high - depths.low) // depths.step + 1
    return ((depth - depths.low) // depths.step + 0.5) / count


def fraction_to_depth(share: float, depths: IntDistribution) -> int:
    """The depth in whose part a share lies."""
    count = (depths.high - depths.low) // depths.step + 1
    return depths.low + depths.step * min(int(share * count), count - 1)


def _by_share(trial: FrozenTrial) -> FrozenTrial:
    depths = trial.distributions.get(DEPTH)
    if not isinstance(depths, IntDistribution):
        return trial
    changed = copy.copy(trial)
    changed.params = {**trial.params, DEPTH: depth_to_fraction(trial.params[DEPTH], depths)}
    return changed


def _depths(study: Study) -> dict[str, IntDistribution]:
    """The range of each backbone of which there are trials; nothing where lists of depths are searched."""
    found = {}
    for trial in study._get_trials(deepcopy=False, use_cache=True):
        depths, backbone = trial.distributions.get(DEPTH), trial.params.get(BACKBONE)
        if isinstance(depths, IntDistribution) and isinstance(backbone, str):
            found[backbone] = depths
    return found


def new_shared_space() -> IntersectionSearchSpace:
    """For a study's samplers: none of its trials looked at yet."""
    return IntersectionSearchSpace(include_pruned=True)
