"""Optuna's samplers by name."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from trainables.errors import UsageError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.search_space import IntersectionSearchSpace

SAMPLERS = ("tpe", "random", "qmc", "cmaes", "nsga2")


def make_sampler(
    name: str, seed: int, trials_so_far: int = 0, common: IntersectionSearchSpace | None = None
) -> BaseSampler:
    """A sampler whose random numbers are a function of (seed, trials_so_far).

    A search that was interrupted therefore proposes what it would have proposed without the interruption.
    Quasi-random points are one sequence and keep one seed. ``common`` saves time where one study gets a sampler for
    each of its trials: all of them share it.
    """
    import optuna

    fresh = int(np.random.SeedSequence([seed, trials_so_far]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "tpe":
            from search.ledger.sampling.tpe import IncrementalTPESampler, new_shared_space

            return IncrementalTPESampler(fresh, common or new_shared_space())
        if name == "random":
            return optuna.samplers.RandomSampler(seed=fresh)
        if name == "qmc":
            return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
        if name == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=fresh, warn_independent_sampling=False)
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=fresh)
    raise UsageError(f"sampler: expected one of {', '.join(SAMPLERS)}, received {name!r}")
