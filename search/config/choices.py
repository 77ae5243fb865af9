"""The names that options accept, each with its description for help, messages and ``docs/options.md``.

Every list of valid names exists once: here, or in the package below that implements them
(:mod:`trainables.methods.methods`, :mod:`trainables.numerics`, :mod:`trainables.reuse`, :mod:`search.records.metrics`).
An entry of :data:`SAMPLERS` or :data:`SCHEDULERS` holds the dotted path of the function that makes the object, because
this module is part of the command line and must not import Optuna, Ray or TensorFlow.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trainables.methods.methods import METHODS as METHODS
from trainables.modalities.image.applications import PREPROCESSING_MODES

_MAX_COMPARED = 60
"""Letters of a word that :func:`did_you_mean` compares. No valid name is longer, and difflib takes quadratic time."""


REQUIRED_OPTIONS: Mapping[str, str] = {
    "source": "--source DATA, which it transfers from",
    "teacher": "--teacher BACKBONE, which it learns from",
}
"""Options that a method may require, as messages name them, with what they are for."""

ALL_METHODS = "all"
"""The value of ``--method`` that makes the method a parameter of the search."""

METHOD_NAMES: Mapping[str, str] = {
    **{name: method.description for name, method in METHODS.items() if not method.reference},
    ALL_METHODS: "let the search choose among the methods that can run; baselines are excluded",
}
BASELINE_SOURCES: Mapping[str, str] = {
    name: method.baseline_source for name, method in METHODS.items() if method.baseline_source is not None
}
"""What each baseline trains from, in words."""

MAX_EPOCH_FACTOR = 10.0
"""Bounds the training time of a baseline whose target is far smaller than the source."""

SCRATCH_EPOCH_FACTOR = 2
"""How many times as many epochs a trial from scratch has as a trial of the search, if their number is left open.

Without pretrained weights a network needs more steps, and few long trials find a better one than many short ones.
"""

SCRATCH_TRIALS_DIVISOR = 3
"""How many times fewer such trials there are by default. Of fewer and longer trials successive halving stops a smaller
share, so that search and baseline then take about equally many optimizer steps in all.
"""


@dataclass(frozen=True)
class Sampler:
    """One sampler of Optuna, which proposes configurations.

    Attributes:
        implementation: dotted path of a function that makes it from
            :class:`~search.ledger.sampling.samplers.SamplerSettings`.
        description: what the sampler does, for help and docs.
        single_objective_only: whether it ranks trials by one number and therefore cannot search for a Pareto front.
    """

    implementation: str
    description: str
    single_objective_only: bool = False


@dataclass(frozen=True)
class Scheduler:
    """One trial scheduler of Tune, which stops weak trials early.

    Attributes:
        implementation: dotted path of a function that makes it from
            :class:`~search.execution.schedulers.SchedulerSettings`.
        description: what the scheduler does, for help and docs.
    """

    implementation: str
    description: str


SAMPLERS: Mapping[str, Sampler] = {
    "tpe": Sampler(
        "search.ledger.sampling.samplers.make_tpe",
        "tree-structured Parzen estimator: learns from every finished trial",
    ),
    "random": Sampler("search.ledger.sampling.samplers.make_random", "independent random configurations"),
    "qmc": Sampler("search.ledger.sampling.samplers.make_qmc", "quasi-Monte Carlo: covers the space evenly"),
    "cmaes": Sampler(
        "search.ledger.sampling.samplers.make_cmaes",
        "covariance matrix adaptation, for numeric spaces and a single objective",
        single_objective_only=True,
    ),
    "nsga2": Sampler("search.ledger.sampling.samplers.make_nsga2", "a genetic algorithm"),
}
"""All samplers by the name that ``--sampler`` accepts."""

SAMPLER_NAMES: Mapping[str, str] = {name: sampler.description for name, sampler in SAMPLERS.items()}

SCHEDULERS: Mapping[str, Scheduler] = {
    "asha": Scheduler(
        "search.execution.schedulers.make_asha",
        "asynchronous successive halving: stops the weaker two thirds after a third of their training",
    ),
    "hyperband": Scheduler(
        "search.execution.schedulers.make_hyperband",
        "three brackets of successive halving: only a part of the trials can be stopped, after a third of their "
        "training",
    ),
    "median": Scheduler(
        "search.execution.schedulers.make_median",
        "stops a trial that is below the median of the others, from a third of its training on",
    ),
    "none": Scheduler("search.execution.schedulers.make_fifo", "trains every trial to its last epoch"),
}
"""All schedulers by the name that ``--scheduler`` accepts."""

SCHEDULER_NAMES: Mapping[str, str] = {name: scheduler.description for name, scheduler in SCHEDULERS.items()}

PREPROCESSING: Mapping[str, str] = {
    "auto": "the backbone's own; `none` for a .keras file",
    **PREPROCESSING_MODES,
}
PRIOR: Mapping[str, str] = {
    "on": "backbones with better transferability scores are tried more often at first; none is excluded",
    "off": "no backbone is preferred before there are results of trials",
}


PROBE: Mapping[str, str] = {
    "on": "a logistic regression on features of the frozen backbone is the first trial, with which all others are "
    "compared",
    "off": "there is no such trial",
}


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the name most similar to ``word``, or an empty string if none is similar."""
    found = difflib.get_close_matches(word[:_MAX_COMPARED].lower(), list(names), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def baseline_phrase(method: str) -> str:
    """Return what the baseline ``method`` does, in words, such as ``training from scratch``."""
    return f"training from {BASELINE_SOURCES.get(method, method)}"


def baseline_epoch_factor(target: int, source: int) -> float:
    """Return by which factor a baseline on the target alone trains more epochs than a trial on source and target.

    An epoch on source and target has more batches. Without the factor, the baseline would take fewer optimizer steps
    and lose for that reason alone.

    Args:
        target: number of training images of the target.
        source: number of training images of the source.
    """
    return min((target + source) / target, MAX_EPOCH_FACTOR)
