"""Makes the sampler that proposes the next trial, by its name.

A new sampler needs a function that makes it from :class:`SamplerSettings`, here or in a file of its own, and one entry
in :data:`search.config.choices.SAMPLERS` with the dotted path of that function. Validation, help and docs follow from
the entry.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from search.config.choices import SAMPLERS
from trainables.errors import UsageError
from trainables.implementations import load_implementation

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.search_space import IntersectionSearchSpace


@dataclass(frozen=True)
class SamplerSettings:
    """What a sampler is made from.

    Attributes:
        search_seed: the search's seed, the same for every proposal.
        proposal_seed: a seed of this proposal alone, a function of the search's seed and the number of trials so far.
        shared_space: the parameters that all trials of the study have in common; kept from one sampler to the next.
    """

    search_seed: int
    proposal_seed: int
    shared_space: IntersectionSearchSpace | None


def make_sampler(
    name: str, seed: int, trials_so_far: int = 0, shared_space: IntersectionSearchSpace | None = None
) -> BaseSampler:
    """Make a sampler whose random numbers are a function of (seed, trials_so_far).

    The ledger makes a new sampler for each trial. A search that was interrupted therefore proposes what it would have
    proposed without the interruption, although the state of a sampler is stored nowhere.

    Args:
        name: one of :data:`search.config.choices.SAMPLERS`.
        seed: the search's seed.
        trials_so_far: how many trials the search has started.
        shared_space: saves time where one study gets a sampler for each of its trials: pass all of them the same one.

    Raises:
        UsageError: there is no such sampler.
    """
    import optuna

    if name not in SAMPLERS:
        raise UsageError(f"sampler: expected one of {', '.join(SAMPLERS)}, received {name!r}")
    proposal_seed = int(np.random.SeedSequence([seed, trials_so_far]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        made: BaseSampler = load_implementation(SAMPLERS[name].implementation)(
            SamplerSettings(seed, proposal_seed, shared_space)
        )
    return made


def make_tpe(settings: SamplerSettings) -> BaseSampler:
    """Make a tree-structured Parzen estimator that reads each finished trial once."""
    from search.ledger.sampling.tpe import IncrementalTPESampler, new_shared_space

    return IncrementalTPESampler(settings.proposal_seed, settings.shared_space or new_shared_space())


def make_random(settings: SamplerSettings) -> BaseSampler:
    """Make a sampler of independent random configurations."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=settings.proposal_seed)


def make_qmc(settings: SamplerSettings) -> BaseSampler:
    """Make a sampler of quasi-Monte Carlo points."""
    from optuna.samplers import QMCSampler

    # Quasi-random points are one sequence: with a new seed for each proposal they would not cover the space evenly.
    return QMCSampler(seed=settings.search_seed, scramble=True, warn_independent_sampling=False)


def make_cmaes(settings: SamplerSettings) -> BaseSampler:
    """Make a sampler by covariance matrix adaptation (CMA-ES)."""
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=settings.proposal_seed, warn_independent_sampling=False)


def make_nsga2(settings: SamplerSettings) -> BaseSampler:
    """Make a sampler by the genetic algorithm NSGA-II."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=settings.proposal_seed)
