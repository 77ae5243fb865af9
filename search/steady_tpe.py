"""Optuna's TPE, made anew for every proposal without looking at every earlier trial for what they have in common."""

from __future__ import annotations

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial


class SteadyTPESampler(TPESampler):
    """Proposes what :class:`optuna.samplers.TPESampler` does.

    Args:
        seed: of this proposal.
        common: the parameters that all trials of the study have; kept from one sampler to the next.
    """

    def __init__(self, seed: int, common: IntersectionSearchSpace) -> None:
        super().__init__(seed=seed)
        self._common = common

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are proposed together; with several objectives Optuna proposes each by itself."""
        if study._is_multi_objective():
            return {}
        return {n: d for n, d in self._common.calculate(study).items() if not d.single()}


def common_parameters() -> IntersectionSearchSpace:
    """For a study's samplers: none of its trials looked at yet."""
    return IntersectionSearchSpace(include_pruned=True)
